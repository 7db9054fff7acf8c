"""Search ranges, which replace single values in a study file."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection
from decimal import Decimal
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Self,
    TypeAlias,
    TypeGuard,
    TypeVar,
    get_args,
    get_origin,
)

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, create_model, model_validator
from pydantic.fields import FieldInfo

T = TypeVar("T")

READING = "reading"
"""Validation context in which rules that matter only for training are not applied."""


class Section(BaseModel):
    """A frozen section of a study file; rejects unknown keys and values of other types."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_by_name=False,
    )


MOST_STEPS = 1e7
"""Maximum number of steps between 0 and a stepped range's larger bound; with more, rounding errors are too large."""


R = TypeVar("R", bound=Section)


def training_rule(check: Callable[[R], R]) -> Callable[[R], R]:
    """Decorates a section's rule about combinations of settings, which matters only for training.

    In the context ``READING`` the rule is not applied, so that studies from before the rule can still be read. Types
    and bounds of values are always checked.
    """

    def checked(section: R, info: ValidationInfo) -> R:
        return section if info.context == READING else check(section)

    return model_validator(mode="after")(checked)  # type: ignore[return-value]  # pydantic's own wrapper


UNDOCUMENTED = ConfigDict(use_attribute_docstrings=False)
"""For classes created at run time; without it, pydantic searches for their source, which takes a second in total."""


class Choice(Section, Generic[T]):
    """One of several values."""

    model_config = UNDOCUMENTED

    choice: Annotated[tuple[T, ...], Field(min_length=1, description="The values to choose from.")]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.choice)) < len(self.choice):
            raise ValueError("the values of a choice must differ")
        return self


class IntRange(Section, Generic[T]):
    """A whole number between two bounds, both included."""

    model_config = UNDOCUMENTED

    bounds: Annotated[tuple[T, T], Field(alias="int", description="``[low, high]``.")]
    log: Annotated[bool, Field(description="Search on a logarithmic scale.")] = False
    step: Annotated[int, Field(ge=1, description="Distance between neighboring values; must be 1 with ``log``.")] = 1

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _check_bounds(*self.bounds, log=self.log)
        if self.log and self.step != 1:
            raise ValueError("log and step cannot be combined; remove one")
        return self


class FloatRange(Section, Generic[T]):
    """A number between two bounds, both included."""

    model_config = UNDOCUMENTED

    bounds: Annotated[tuple[T, T], Field(alias="float", description="``[low, high]``.")]
    log: Annotated[bool, Field(description="Search on a logarithmic scale.")] = False
    step: Annotated[
        Annotated[float, Field(gt=0)] | None,
        Field(description="Distance between neighboring values; cannot be combined with ``log``."),
    ] = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _check_bounds(*self.bounds, log=self.log)
        if self.log and self.step is not None:
            raise ValueError("log and step cannot be combined; remove one")
        if self.step is not None:
            _check_step(*self.bounds, step=self.step)
        return self


def _check_bounds(low: Any, high: Any, *, log: bool) -> None:
    if low >= high:
        raise ValueError(f"the lower bound must be below the upper one, got [{low}, {high}]")
    if log and low <= 0:
        raise ValueError(f"a logarithmic range must be above zero, got [{low}, {high}]")


def _check_step(low: Any, high: Any, *, step: float) -> None:
    largest = max(abs(low), abs(high))
    if largest > MOST_STEPS * step:
        raise ValueError(
            f"step {step:g} is too small for bounds of up to {largest:g}: floating-point numbers cannot resolve it; "
            "remove step for a continuous range, or write a larger one"
        )


def without_effect(names: Collection[str]) -> str:
    """The beginning of a message: ``step has no effect``, or ``log, step have no effect``."""
    return f"{', '.join(sorted(names))} {'has' if len(names) == 1 else 'have'} no effect"


def _word_kind(value: Any) -> str:
    """The tag of the union member for this value."""
    return "choice" if isinstance(value, Choice | dict) else "value"


def _int_kind(value: Any) -> str:
    is_range = isinstance(value, IntRange) or (isinstance(value, dict) and "choice" not in value)
    return "range" if is_range else _word_kind(value)


def _float_kind(value: Any) -> str:
    is_range = isinstance(value, FloatRange) or (isinstance(value, dict) and "choice" not in value)
    return "range" if is_range else _word_kind(value)


AnyRange: TypeAlias = Choice[Any] | IntRange[Any] | FloatRange[Any]

if TYPE_CHECKING:
    IntSearch: TypeAlias = T | Choice[T] | IntRange[T]
    FloatSearch: TypeAlias = T | Choice[T] | FloatRange[T]
    WordSearch: TypeAlias = T | Choice[T]
else:
    # A generic alias would lose T, because pydantic evaluates Choice[T] to Choice.
    class WordSearch:
        """A word, or a choice of words."""

        def __class_getitem__(cls, item: Any) -> Any:
            members = Annotated[item, Tag("value")] | Annotated[Choice[item], Tag("choice")]
            return Annotated[members, Discriminator(_word_kind)]

    class IntSearch:
        """A whole number, a choice of them, or a range."""

        def __class_getitem__(cls, item: Any) -> Any:
            members = Annotated[item, Tag("value")] | Annotated[Choice[item], Tag("choice")]
            return Annotated[members | Annotated[IntRange[item], Tag("range")], Discriminator(_int_kind)]

    class FloatSearch:
        """A number, a choice of them, or a range."""

        def __class_getitem__(cls, item: Any) -> Any:
            members = Annotated[item, Tag("value")] | Annotated[Choice[item], Tag("choice")]
            return Annotated[members | Annotated[FloatRange[item], Tag("range")], Discriminator(_float_kind)]


FIXED = "fixed"
"""Marks a setting of a section that cannot be searched."""
Fixed: TypeAlias = Annotated[T, FIXED]
"""A setting that has one value in a study."""
S = TypeVar("S", bound=Section)


@functools.cache
def space_of(section: type[S]) -> type[S]:
    """Returns the section's form in a study file, in which all settings except fixed ones may be ranges."""
    fields: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if FIXED in field.metadata:
            continue
        annotation, default = _searched(field), field.default
        if isinstance(default, Section):
            default = space_of(type(default))()
        fields[name] = annotation, Field(default=default, description=field.description)
    name = f"{section.__name__.removesuffix('Spec')}Space"
    return create_model(
        name,
        __base__=section,
        __doc__=section.__doc__,
        __module__=section.__module__,
        __cls_kwargs__=dict(UNDOCUMENTED),
        **fields,
    )


def _searched(field: FieldInfo) -> Any:
    """The field's type, or a range of it."""
    item: Any = field.annotation
    if isinstance(item, type) and issubclass(item, Section):
        return space_of(item)
    if type(None) in get_args(item):
        (only,) = (part for part in get_args(item) if part is not type(None))
        return _search_type(only)[only] | None
    return _search_type(item)[Annotated[(item, *field.metadata)] if field.metadata else item]


def _search_type(item: Any) -> Any:
    plain = get_args(item)[0] if get_origin(item) is Annotated else item
    return {int: IntSearch, float: FloatSearch}.get(plain, WordSearch)


if TYPE_CHECKING:

    class Space(Section, Generic[S]):
        """A section whose settings may be ranges; read them with ``dimensions`` or ``values_of``."""

else:

    class Space:
        """A section whose settings may be ranges."""

        def __class_getitem__(cls, section: type[Section]) -> type[Section]:
            return space_of(section)


def tag_of(value: object, key: str, *, usual: str) -> str:
    """The value of the key that selects among several sections, from a section or from the content of a file."""
    found = value.get(key, usual) if isinstance(value, dict) else getattr(value, key, usual)
    return found if isinstance(found, str) else "a range" if isinstance(found, dict) else json.dumps(found)


def is_range(value: object) -> TypeGuard[AnyRange]:
    """Whether the setting is searched."""
    return isinstance(value, Choice | IntRange | FloatRange)


def count_of(value: object) -> int | None:
    """Number of values that a setting may have; None for a continuous range."""
    match value:
        case Choice(choice=choice):
            return len(choice)
        case IntRange(bounds=(low, high), step=step):
            return int((high - low) // step) + 1
        case FloatRange(step=None):
            return None
        case FloatRange(bounds=(low, high), step=float(step)):
            return _whole_steps(low, high, step) + 1
        case _:
            return 1


def value_at(value: object, index: int) -> object:
    """Returns value ``index``, from 0, of a setting that has ``count_of`` values.

    Values are never larger than Optuna's last value of a stepped range, although sums of steps are rounded.
    """
    match value:
        case Choice(choice=choice):
            return choice[index]
        case IntRange(bounds=(low, _), step=step):
            return low + index * step
        case FloatRange(bounds=(low, high), step=float(step)):
            last = float(Decimal(str(low)) + _whole_steps(low, high, step) * Decimal(str(step)))
            return min(low + index * step, last)
        case _:
            return value


def _whole_steps(low: float, high: float, step: float) -> int:
    """Number of steps between the bounds, computed with decimals because floats round."""
    return int((Decimal(str(high)) - Decimal(str(low))) // Decimal(str(step)))


def values_of(value: object) -> list[object] | None:
    """All values that a setting may have, in order; None for a continuous range."""
    count = count_of(value)
    return None if count is None else [value_at(value, index) for index in range(count)]


def extremes_of(value: object) -> list[object]:
    """All values of a choice, both bounds of a range, or the single value."""
    count = count_of(value)
    if count is None:
        assert isinstance(value, FloatRange)
        return list(value.bounds)
    places = range(count) if isinstance(value, Choice) else sorted({0, count - 1})
    return [value_at(value, place) for place in places]
