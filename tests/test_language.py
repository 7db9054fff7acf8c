"""What a person reads is plain English: no phrase of a list that reads as a translation, lines wrapped, tables narrow.

Each rule names what to write instead. The rules catch the worst; they do not make good prose.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RULES: dict[str, str] = {
    # words and turns with a plain synonym
    r"\b(?:from|by|for|of|with|in|on|needs?|is) (?:[\w`-]+ ){1,4}alone\b": "only, before the noun",
    r"\bbeside\b": "compared with, next to, in addition to, or while … is running",
    r"\b(?:unless|if not) (?:given|named|said|told)\b": "default: X",
    r"\bno (?:larger|smaller|wider|narrower|worse|costlier|longer than)\b": "at most, at least, or within X of",
    r"\bflatter(?:s|ed|y|ing)?\b": "optimistic, selection bias",
    r"\b(?:luck|lucky)\b": "by chance",
    r"\bworth\b": "scores, helps, is needed",
    r"\b(?:comes?|came|become) of (?:it|that|them|its?|his|her|what)\b|\bwhat (?:comes|came) of\b": "the result of",
    r"\blevel with\b|\bis level\b": "up to date, or synchronizes",
    r"\b(?:makes?|made|making) up for\b": "uploads what is missing, or compensates for",
    r"\bbegun\b": "started",
    r"\b(?:stands|stood)\b|\bstand (?:in|on|at|here|there|beside|for)\b": "is in, is at, means",
    r"\b(?:is|are|was) said (?:of|to)\b|\b(?:is|are) told (?:of|as|by|what)\b": "kdsearch reports, describes",
    r"\b(?:goes|go|do|does) without\b": "to avoid X, set Y",
    r"\b(?:Read|Shown|Kept|Meant|Said) (?:is|are)\b": "subject first",
    r"\bNothing within\b": "a whole sentence: If no student fits …",
    r"\bbut for\b": "except",
    r"\bthere is not\b|\bthat (?:is|are) not there\b|\bis not there\b": "does not exist",
    r"\b(?:begins?|began|beginning) again\b": "starts over, starts from scratch",
    r"\banew\b": "again, from scratch, rebuilt",
    r"\bas it was\b": "the previous version",
    r"\bas (?:it|they) comes?\b": "unchanged",
    r"\bin the place of\b": "instead of",
    r"\bbeyond doubt\b": "statistically clear",
    r"\btoo good to be true\b": "optimistic",
    r"\bbrings? along\b|\bbrings? (?:it|them) along\b|\bcomes? along\b": "includes, bundles",
    r"\bto (?:its|their) end\b": "until it finishes",
    r"\b(?:can|could|may)(?:not| not)? be had\b": "available",
    r"\bthe very\b": "this, exactly the",
    r"\bhow sure\b": "how certain, uncertainty",
    r"\bshared out\b": "split",
    r"\btold apart\b|\btell apart\b": "distinguished",
    r"\b(?:speaks?|spoke) (?:of|for)\b": "describes, covers",
    r"\b(?:pays|paid|buys?|bought)\b": "helps, improves, needs",
    r"\b(?:aimed at|hoped for)\b": "the target was",
    r"\bhalf (?:a )?decade\b|\ba decade of\b": "a factor of about 3, a factor of 10",
    r"\b(?:thereof|therein|thereby|hitherto|whilst|amongst)\b": "a plain word",
    r"\bunmarked\b": "without a warning",
    # people in place of programs
    r"\b(?:hears?|heard|hearing)\b": "is trained with, receives",
    r"\b(?:lived|lives)\b(?! view)": "is in",
    r"\b(?:students?|networks?|teachers?|encoders?|images?) (?:asks?|knows?|tells?|says?|speaks?|hears?)\b": (
        "compute, predict, are trained; data show"
    ),
    r"\b(?:ask(?:s|ed|ing)?|who asks) (?:the|a|its) teachers?\b|\bteachers? (?:is|are|was) asked\b": "run the teacher",
    # chains, inversions and ellipsis
    r"\b(?:is|are|was|were) of (?:the|a|an|one|these|those|its|their|logits|hidden|students|images|which)\b": (
        "describes, covers, belongs to"
    ),
    r"\bwhat is said\b": "the results, the statement",
    r"\bthose of (?:that|the) one\b": "name it again",
    r"\bwere (?:it|they) (?:the|not|a|to)\b|\bHad (?:it|the|they|other)\b[^.?]{3,60}\b(?:would|were)\b": "If …",
    r"(?:^|[.;:] )Where (?:a|an|the|it|there|no|several|that|this|files|images) [^.?|:]{0,60}"
    r"\b(?:is|are|has|have|does|do|was|were|cannot|can|needs?)\b[^.?|:]{3,100}, ": "If …, When …",
    r"\b(?:worker|row|ms|images|report|file|points|trials|steps|students|teacher|mask) an? "
    r"(?:core|image|second|epoch|file|step|worker|trial|decade|study|node|fold|term)\b": "per, for each",
    # the field's terms
    r"\bout[ -]of[ -]fold\b": "cross-validated",
    r"\bsize of (?:the|their) files?\b|\bfiles['\u2019] size\b": "original resolution",
    r"\bhidden maps?\b": "feature maps",
    r"\bwithout (?:a )?lesions?\b": "negative images",
    r"\bempty share\b|\bleft empty\b|\bleaves? empty\b": "specificity, clean negatives",
    r"\b(?:is|are|was|nothing|something) marked\b|\bthe markings?\b|\bmarks? (?:the lesions?|too much|nothing)\b": (
        "predict, prediction"
    ),
    r"\bplain (?:students?|twins?|ones?|training|teachers?|front)\b|\bplainly\b": "undistilled, no teacher",
    r"\b(?:from|by) masks alone\b|\bstudent alone\b": "undistilled, trained without a teacher",
    r"\b(?:MLflow|study|server)['\u2019]s record\b|\bthe whole record\b|\bon the record\b": "MLflow runs",
    r"\b(?:the|study['\u2019]s|Optuna['\u2019]s|its|a) storage\b": "Optuna database",
    r"\b(?:begins?|began|starts?|started|trained|trains?) cold\b|\bcold (?:start|student|one)s?\b": "from scratch",
    r"\bnot shown\b": "inconclusive, could not be shown",
    r"\bpictures?\b": "image, overlay, chart",
    r"\bplaces? of work\b|\b(?:each|over|pairs of|image['\u2019]s) places?\b|\bplace for checkpoints\b": (
        "pixel, position, hospital, folder"
    ),
    r"\btwo-valued\b": "binary",
    r"\bnot distinguishable\b|\bcannot be told\b": "statistically indistinguishable",
    # American spelling, except distil, distillation and unlabelled
    r"\b\w*(?:ptimis|ormalis|eneralis|ecognis|ardis|nitialis|egularis|inaris|inimis|aximis|ummaris|rganis|isualis"
    r"|erialis|uantis|ameteris|enalis|ynchronis|mphasis(?=e|i)|haracteris)(?:e|es|ed|er|ers|ing|ations?)\b": "-ize",
    r"\b(?:grey|colour|neighbour|behaviour|favour|honour|labour)(?:s|ed|ing|scale|ful|able|hood)?\b": "gray, color",
    r"\b(?:licen[c]e|centre|metre|millimetre|fibre|artefact|catalogue|programme|defence|judgement)(?:s|d)?\b": (
        "license, center, meter, artifact …"
    ),
    r"\b(?:learnt|spelt|travelled|cancelled|modelled|labelled|labelling|analyse[sd]?|analysing|ageing)\b": (
        "learned, spelled, canceled, labeled, analyze …"
    ),
}
PATTERNS = {re.compile(rule.replace(" ", r"\s+"), re.MULTILINE): instead for rule, instead in RULES.items()}

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("CHANGELOG.md", "learnt"): "a stored word of seen.txt",
}
"""By where a phrase may be (a path, or its beginning), and why."""
STORED_WORDS = {
    "inconclusive": "a confirmation's verdict, which older studies hold; people read inconclusive",
    "grey / 255, minus mean, by std": "the scale that student.yaml names",
}
"""Strings of code that are these words are values, not text."""

MARKDOWN_WIDTH = 100
MOST_COLUMNS = 6
GENERATED = re.compile(r"<!-- settings.*?<!-- end of settings -->", re.DOTALL)
"""Tables of settings: their text is that of ``kdsearch/config``."""
WRITTEN_BY_PROGRAMS = ("tests/stored/",)
"""Fixtures that earlier releases wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Text that a person reads, and where it starts."""

    text: str
    line: int


def _areas() -> dict[str, list[Path]]:
    """Files by area; packages of code and of tests are areas by themselves, so that they turn green one by one."""
    community = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "CITATION.cff")]
    areas = {
        "README": [ROOT / "README.md"],
        "docs": sorted((ROOT / "docs").rglob("*.md")),
        "changelog": [ROOT / "CHANGELOG.md"],
        "community": [*community, *sorted((ROOT / ".github").rglob("*.*")), *sorted((ROOT / "mlflow").glob("*.md"))],
        "studies": sorted((ROOT / "studies").glob("*.yaml")),
        "scripts": [ROOT / ".ci" / "run", ROOT / "pyproject.toml", *sorted((ROOT / "mlflow" / "team").iterdir())],
    }
    for package in ("kdsearch", "tests"):
        areas[package] = sorted((ROOT / package).glob("*.py"))
        for folder in sorted(path for path in (ROOT / package).iterdir() if path.is_dir()):
            files = sorted(folder.rglob("*.py"))
            if files:
                areas[f"{package}/{folder.name}"] = files
    return {name: [path for path in files if path.is_file()] for name, files in areas.items()}


AREAS = _areas()


@pytest.mark.parametrize("area", AREAS)
def test_text_uses_plain_english(area):
    found = [line for path in AREAS[area] for line in _faults(path)]
    assert not found, f"{len(found)} phrases in {area}:\n" + "\n".join(found)


def test_every_rule_catches_something_and_plain_english_passes():
    caught = "The teacher asks beside twins; it stood at the size of the files, unless given, by luck."
    assert len(list(_matches([Passage(text=caught, line=1)], "x.md"))) == 6
    plain = "The student is trained from scratch. Compare it with its undistilled twin at original resolution."
    assert not list(_matches([Passage(text=plain, line=1)], "x.md"))


def test_a_fault_names_file_line_phrase_and_replacement(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Fine.\n\n`beside` is a key, and this is put\nbeside it.\n", encoding="utf-8")
    assert _faults(page, name="page.md") == [
        "page.md:4: 'beside' → compared with, next to, in addition to, or while … is running"
    ]


def test_code_is_read_for_comments_docstrings_and_sentences_only(tmp_path):
    module = tmp_path / "module.py"
    module.write_text('grey = "grey"\nx = f"it is beside {grey}"  # by luck\n', encoding="utf-8")
    assert {fault.split("'")[1] for fault in _faults(module, name="kdsearch/module.py")} == {"beside", "luck"}


MARKDOWN = [
    path for area in ("README", "docs", "changelog", "community") for path in AREAS[area] if path.suffix == ".md"
]


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_prose_is_wrapped_and_tables_are_narrow(page):
    faults = []
    for number, line in _outside_fences(page.read_text(encoding="utf-8")):
        where = f"{page.relative_to(ROOT)}:{number}"
        if line.lstrip().startswith("|"):
            if (columns := line.replace(r"\|", "").strip().strip("|").count("|") + 1) > MOST_COLUMNS:
                faults.append(f"{where}: a table of {columns} columns; at most {MOST_COLUMNS}")
        elif len(line) > MARKDOWN_WIDTH and " " in line.strip().removeprefix("- "):
            faults.append(f"{where}: {len(line)} characters; wrap at {MARKDOWN_WIDTH}")
    assert not faults, "\n".join(faults)


def _faults(path: Path, name: str | None = None) -> list[str]:
    shown = name or path.relative_to(ROOT).as_posix()
    if shown.startswith(WRITTEN_BY_PROGRAMS) and path.suffix != ".py":
        return []
    return list(_matches(_passages(path, shown), shown))


def _matches(passages: Iterable[Passage], shown: str) -> Iterator[str]:
    for passage in passages:
        for pattern, instead in PATTERNS.items():
            for match in pattern.finditer(passage.text):
                phrase = " ".join(match.group().split())
                if not _is_excepted(shown, phrase):
                    line = passage.line + passage.text.count("\n", 0, match.start())
                    yield f"{shown}:{line}: {phrase!r} → {instead}"


def _is_excepted(shown: str, phrase: str) -> bool:
    return any(shown.startswith(start) and phrase == allowed for start, allowed in EXCEPTIONS)


def _passages(path: Path, shown: str) -> Iterator[Passage]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _of_code(text, strings=not shown.startswith("tests/"), names=shown.startswith("tests/"))
    elif path.suffix == ".md":
        yield Passage(text=_prose(text), line=1)
    else:
        yield Passage(text="\n".join(re.sub(r"^[^#]*#?", "", line) for line in text.splitlines()), line=1)


def _prose(text: str) -> str:
    """The page with the same line numbers, without code and generated tables; comments and sample output stay."""
    lines, language = [], None
    text = GENERATED.sub(lambda found: "\n" * found[0].count("\n"), text)
    for line in text.splitlines():
        fence = re.match(r"^\s*```(\w*)", line)
        if fence:
            language = (fence.group(1) or "text") if language is None else None
            lines.append("")
        elif language in (None, "text"):
            lines.append(line)
        else:
            lines.append(line.partition("#")[2])
    return re.sub(r"`[^`\n]*`", "`x`", re.sub(r"\]\([^)\s]*\)", "]", "\n".join(lines)))


def _outside_fences(text: str) -> Iterator[tuple[int, str]]:
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def _of_code(text: str, *, strings: bool, names: bool) -> Iterator[Passage]:
    """Comments and docstrings; strings with a space in them; the names of tests as sentences."""
    yield from _comments(text)
    tree = ast.parse(text)
    documented = {id(node) for node in _docstrings(tree)}
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and strings:
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield Passage(text=_unquoted("".join(str(part) for part in parts)), line=node.lineno)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            is_prose = strings and " " in node.value.strip() and node.value not in STORED_WORDS
            if id(node) in documented or is_prose:
                yield Passage(text=_unquoted(node.value), line=node.lineno)
        elif names and isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield Passage(text=node.name.replace("_", " "), line=node.lineno)


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Strings that are statements: docstrings, and the lines under a field."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def _comments(text: str) -> Iterator[Passage]:
    """Comments, those on following lines as one passage."""
    lines: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        row = token.start[0]
        if lines and row != last + 1:
            yield Passage(text="\n".join(lines), line=first)
            lines = []
        if not lines:
            first = row
        lines.append(_unquoted(token.string.lstrip("# ")))
        last = row
    if lines:
        yield Passage(text="\n".join(lines), line=first)


def _unquoted(text: str) -> str:
    return re.sub(r"``?[^`\n]+``?", "`x`", text)
