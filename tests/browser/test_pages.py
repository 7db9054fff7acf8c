"""Pages as a browser shows them: MLflow's saved views and overlays, and the front and the report offline."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from kdsearch.cli.main import main
from kdsearch.config.load import load_study
from kdsearch.tracking.client import find_views
from kdsearch.tracking.location import Tracking
from kdsearch.tracking.server import serving
from mlflow import MlflowClient
from tests.absent import absent
from tests.tiny import TINY

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STUDY = TINY.replace("trials: 3", "trials: 12, executor: inline, pruning: none").replace(
    "depth: 2", "depth: {int: [1, 2]}"
)
TRIALS = 12
PATIENCE_MS = 90_000


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a finished study and its report."""
    folder = tmp_path_factory.mktemp("browsed")
    (folder / "tiny.yaml").write_text(STUDY, encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["run", "tiny.yaml"]) == 0
        assert main(["front", "tiny.yaml", "--html", "front.html"]) == 0
        assert main(["report", "tiny.yaml"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; skips where there is none."""
    if CHROMIUM is None:
        absent("browser", "no Chromium on the PATH; install it, for example with apt install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def page(browser, request) -> Iterator[Page]:
    """A page that fails the test where it shows an error, and leaves a screenshot where KDSEARCH_ARTIFACTS says."""
    offline = request.node.get_closest_marker("offline") is not None
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, offline=offline)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 500 else None
    )
    yield opened
    folder = os.environ.get("KDSEARCH_ARTIFACTS")
    if folder:
        opened.screenshot(path=Path(folder) / f"{request.node.name}.png")
    context.close()
    assert [error for error in wrong if "ResizeObserver" not in error] == []


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The MLflow server that shows the study's runs."""

    front: str
    """The address of the front's view."""
    client: MlflowClient
    experiment: str

    def run(self, tag: str) -> str:
        """The address of a run's page; ``tag`` is a condition such as ``kind = 'study'`` on kdsearch's tags."""
        name, _, value = tag.partition(" = ")
        found = self.client.search_runs([self.experiment], f"tags.`kdsearch.{name}` = {value}")[0]
        return f"{self.front.partition('/runs')[0]}/runs/{found.info.run_id}"


@pytest.fixture(scope="module")
def site(place) -> Iterator[Site]:
    """A server that is up."""
    tracking = Tracking(uri=f"sqlite:///{place / 'mlflow' / 'mlflow.db'}")
    client = MlflowClient(tracking.uri)
    with serving(tracking) as server:
        experiment = client.get_experiment_by_name("tiny").experiment_id
        yield Site(
            front=f"{server.address}{find_views(tracking, 'tiny')['front']}", client=client, experiment=experiment
        )


def test_front_view_draws_a_point_for_every_trial(page, site):
    page.goto(site.front)
    page.get_by_text("Recipe").first.wait_for(timeout=PATIENCE_MS)
    charts = page.locator(".js-plotly-plot")
    charts.nth(1).locator(".scatterlayer .point").nth(TRIALS - 1).wait_for(state="attached", timeout=PATIENCE_MS)
    assert [charts.nth(index).locator(".scatterlayer .point").count() for index in range(2)] == [TRIALS, TRIALS]
    assert page.get_by_text(f"{TRIALS} matching runs").count() == 1
    assert page.get_by_text("Error").count() == 0


def test_curves_view_shows_the_front_alone(page, site):
    members = site.client.search_runs([site.experiment], "tags.`kdsearch.front` = 'true'")
    page.goto(site.front.replace("kdsearch-front", "kdsearch-curves"))
    page.get_by_text(f"{len(members)} matching run").wait_for(timeout=PATIENCE_MS)
    page.get_by_text("curve/dice").first.wait_for(timeout=PATIENCE_MS)
    page.locator(".js-plotly-plot").nth(1).wait_for(timeout=PATIENCE_MS)
    assert page.locator(".js-plotly-plot").count() == 2


def test_paths_view_is_grouped_by_path(page, site):
    page.goto(site.front.replace("kdsearch-front", "kdsearch-paths"))
    page.get_by_text("Group by: distillation.path").wait_for(timeout=PATIENCE_MS)
    for path in ("none", "logits"):
        page.get_by_text(f"Group: {path}").wait_for(timeout=PATIENCE_MS)
    assert page.get_by_text("Group: ").count() == 2


def test_views_are_offered_by_name(page, site):
    page.goto(site.front)
    page.get_by_role("button", name="Pareto front").click(timeout=PATIENCE_MS)
    for name in ("Learning curves", "Compare paths"):
        page.get_by_text(name).first.wait_for(timeout=PATIENCE_MS)
        assert page.get_by_text(name).first.is_visible()


def test_overlays_load_on_a_members_page(page, site):
    page.goto(site.run("front = 'true'") + "/artifacts/overlays.png")
    wide = "() => [...document.images].some(image => image.naturalWidth > 400)"
    page.wait_for_function(wide, timeout=PATIENCE_MS)
    assert page.evaluate(wide)


def test_study_page_says_what_was_studied(page, site):
    page.goto(site.run("kind = 'study'"))
    page.get_by_text("finished students").first.wait_for(timeout=PATIENCE_MS)
    assert page.get_by_text(f"{TRIALS} trials (tpe)").count() >= 1


@pytest.mark.offline
def test_front_renders_with_no_network_and_reacts_to_hover(page, place):
    page.goto((place / "front.html").as_uri())
    point = page.locator(".scatterlayer .point").last
    point.wait_for(timeout=PATIENCE_MS)
    assert page.locator(".scatterlayer .point").count() >= TRIALS
    box = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
    center = point.bounding_box()
    assert box is not None
    assert center is not None
    page.mouse.move(center["x"] + center["width"] / 2, center["y"] + center["height"] / 2)
    page.locator(".hoverlayer .hovertext").first.wait_for(timeout=PATIENCE_MS)


@pytest.mark.offline
def test_report_renders_with_no_network(page, place):
    page.goto((place / "tiny-report.html").as_uri())
    page.locator(".js-plotly-plot").nth(6).wait_for(timeout=PATIENCE_MS)
    widths = page.locator(".pair > div").evaluate_all(
        "found => found.map(e => [e.clientWidth, e.querySelector('svg').clientWidth])"
    )
    assert all(drawn <= room for room, drawn in widths)
    study = load_study(place / "tiny.yaml")
    assert page.get_by_role("heading", level=1).inner_text() == study.name
    broken = page.locator("img").evaluate_all("found => found.filter(image => !image.naturalWidth).length")
    assert broken == 0
    assert page.locator("img").count() > 0
