"""The search page in a real browser with a real server: every step a visitor takes, looked at and listened to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gradio")
pytest.importorskip("selenium")

from demo_browser import CHROMIUM, DRIVER, INSTALL, Browser, chromium  # noqa: E402
from demo_page import fill_gallery, opened  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from descry.client import SearchClient  # noqa: E402

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not (CHROMIUM.exists() and DRIVER.exists()), reason=INSTALL),
]
CAMERA = "test-browser"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


@pytest.fixture(scope="module")
def images(request, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    fill_gallery(request.getfixturevalue("server").url, root, CAMERA, 8)
    return root


@pytest.fixture(scope="module")
def driver():
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def address(server, images) -> Iterator[str]:
    with opened(server.url, images) as address:
        yield address


@pytest.fixture
def browser(address, driver) -> Iterator[Browser]:
    """The page at 1920 pixels; at the end the console must be free of errors."""
    browser = Browser(driver, address)
    browser.size(1920, 1080)
    browser.open()
    yield browser
    assert browser.complaints() == []
    browser.leave()


def state(browser: Browser, group: str, value: str) -> None:
    browser.click(f'#describe [data-group="{group}"] [data-value="{value}"]')


def only_ours(browser: Browser) -> None:
    """Rank the crops of this module alone: others have indexed images that are not below its folder."""
    browser.click("#filters button")
    browser.click(f'#filters input[type=checkbox][name="{CAMERA}"]')


def search(browser: Browser) -> None:
    browser.click("#search")
    browser.find("#results .hit")


def type_number(browser: Browser, slider: str, value: str) -> None:
    number = browser.find(f"{slider} input[type=number]")
    number.send_keys(Keys.CONTROL, "a")
    number.send_keys(value, Keys.TAB)


def test_state_search_open_a_hit_find_similar_and_change_one_attribute(browser):
    state(browser, "gender", "female")
    state(browser, "upper_color", "red")
    state(browser, "upper_color", "white")
    browser.see(".sentence", "A person who is female, wearing a red or white top.")
    browser.click('#describe [data-group="upper_color"] .deny')
    browser.see(".sentence", "a top that is not red or white")
    sure = browser.find("#describe [data-group=gender] input")
    for _ in range(6):
        sure.send_keys(Keys.ARROW_LEFT)
    browser.see(".sentence", "female (70 % sure)")
    only_ours(browser)
    search(browser)
    browser.see("#results .verdict", "Match.")
    assert browser.text("#why h3") == "Hit 1" and len(browser.all("#results .hit")) == 8
    browser.screenshot("search_1920")
    browser.click('#results [data-rank="2"]')
    browser.see("#why h3", "Hit 2")
    assert browser.text("#why thead").split()[:2] == ["attribute", "stated"]
    browser.click('#why [data-event="regions"]')
    browser.find("#why .regions img")
    browser.screenshot("explanation")
    browser.click('#why [data-event="similar"]')
    browser.see("#results h2", "Looks like hit 2")
    browser.click('#why select[data-group="hat"] option:last-child')
    browser.see("#results h2", "but: A person with")
    browser.screenshot("same_person_but")


def test_a_link_reproduces_the_query_and_the_address_follows(browser):
    browser.open("?q=upper_color%3Dred%7Cwhite&q=hat%21%3Dyes&q=wings%3Dyes", "#results .hit")
    browser.see(".sentence", "with no hat, wearing a red or white top")
    pressed = browser.all('#describe .chip[aria-pressed="true"]:not(.any)')
    assert {one.text for one in pressed} == {"red", "white", "no"}
    browser.click("#describe .group.stated .any")
    browser.until(lambda: "hat" not in browser.script("return location.search"), "the address does not follow")
    assert "upper_color" in browser.script("return decodeURIComponent(location.search)")
    browser.click("#clear")
    browser.until(lambda: not browser.script("return location.search"), "the address does not follow")


def test_the_sliders_rank_again_at_once(browser):
    state(browser, "hat", "yes")
    search(browser)
    before = browser.text("#why h4")
    type_number(browser, "#weight", "4")
    browser.until(lambda: browser.text("#why h4") != before, "the weight does not rank again")
    type_number(browser, "#threshold", "1")
    browser.see("#results .verdict", "No match in this gallery.")
    browser.screenshot("no_match")
    browser.click("#results .nearest summary")
    browser.click("#results .hit")
    browser.see("#why h3", "Hit 1")


def test_a_photo_is_read_edited_and_searched_with(browser, images):
    browser.tab("Photo")
    browser.find("#photo input[type=file]").send_keys(str(images / f"{CAMERA}-0.png"))
    browser.find("#photo-panel .chip .odds")
    browser.screenshot("photo")
    other = browser.find('#photo-panel [data-group="hat"] .chip[aria-pressed="false"]:not(.any)')
    browser.script("arguments[0].click()", other)
    browser.click("#photo-but")
    browser.see("#results h2", "Looks like your photo, but")
    browser.tab("Photo")
    browser.click("#photo-search")
    browser.see("#results h2", "A person who is")
    browser.tab("Photo")
    browser.click("#photo-similar")
    browser.see("#results h2", "Looks like your photo")


def test_images_are_added_and_deleted(browser, images, tmp_path):
    from PIL import Image

    Image.new("RGB", (32, 64), "#226699").save(tmp_path / "added.png")
    browser.tab("Gallery")
    browser.see("#stats", CAMERA)
    browser.find("#files input[type=file]").send_keys(str(tmp_path / "added.png"))
    browser.see("#files", "added")
    browser.find("#camera input, #camera textarea").send_keys("door")
    browser.click("#add")
    browser.see("#done", "1 added")
    browser.see("#stats", "camera door")
    id = next(f"added/{path.name}" for path in (images / "added").iterdir())
    browser.find("#ids textarea").send_keys(id)
    browser.screenshot("gallery")
    browser.click("#delete")
    browser.see("#done", "1 deleted")
    browser.see("#trail", id)
    browser.click("#check")
    browser.see("#report", "rows checked: all sound")


def test_the_page_can_be_used_with_the_keyboard_alone(browser):
    browser.find("#describe .chip").send_keys("")
    browser.script("document.querySelector('#describe [data-group=hat] .any').focus()")
    focused = browser.driver.switch_to.active_element
    focused.send_keys(Keys.TAB)
    browser.driver.switch_to.active_element.send_keys(Keys.TAB)
    browser.driver.switch_to.active_element.send_keys(Keys.SPACE)
    browser.see(".sentence", "with a hat")
    # Drawing anew must not take the focus away.
    assert browser.driver.switch_to.active_element.get_attribute("data-value") == "yes"
    assert browser.script("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    browser.script("document.querySelector('#search').focus()")
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.find("#results .hit")
    browser.script("document.querySelector('#results [data-rank=\"3\"]').focus()")
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.see("#why h3", "Hit 3")


@pytest.mark.parametrize("width", [360, 1920])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_tab_fits_and_axe_finds_nothing_serious(browser, width, theme):
    axe = pytest.importorskip("axe_core_python.selenium")
    browser.size(width, 800 if width < 600 else 1080)
    browser.open(f"?__theme={theme}&q=gender%3Dfemale&q=hat%3Dyes%400.7", "#why h3")
    for tab in ("Describe", "Photo", "Gallery", "Insight"):
        browser.tab(tab)
        browser.find(
            {"Describe": "#results .hit", "Photo": "#photo", "Gallery": "#stats dl", "Insight": "#card dl"}[tab]
        )
        browser.script("window.scrollTo(0, 0)")
        browser.screenshot(f"{tab.lower()}_{width}_{theme}")
        assert browser.script("return document.documentElement.scrollWidth") <= width, f"{tab} is too wide"
        found = axe.Axe().run(browser.driver, options={"runOnly": {"type": "tag", "values": RULES}})
        serious = [
            (one["id"], one["impact"], [node["html"][:200] for node in one["nodes"][:3]])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], tab


def test_it_loads_nothing_from_elsewhere(browser):
    names = browser.script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert [name for name in names if not name.startswith((browser.address, "data:", "blob:"))] == []


def test_the_browser_keeps_nothing_of_what_was_asked(browser):
    state(browser, "gender", "female")
    search(browser)
    kept = browser.script("return JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert [text for text in ("gender", "data:image", "run-history") if text in kept] == []


def test_the_page_outlives_the_server(driver, repository, tmp_path):
    """Opened without a server, found when it comes, told when it goes, and used again when it is back."""
    from descry.client.serve import TritonServer

    server = TritonServer(repository, tmp_path / "gallery.sqlite", "127.0.0.1", 0, None, 0, tmp_path / "triton.log")
    with opened(server.url, tmp_path) as address:
        browser = Browser(driver, address)
        browser.size(1920, 1080)
        browser.open(ready="#status .down")
        browser.see("#status", "start one with `descry serve`")
        with server:
            fill_gallery(server.url, tmp_path, CAMERA)
            browser.find("#describe .chip")
            state(browser, "hat", "yes")
            search(browser)
        browser.click("#search")
        browser.see("body", "no Descry server answers")
        browser.screenshot("server_down")
        browser.find("#status .down")
        with server:
            with SearchClient(server.url, timeout=60) as client:
                assert client.stats().rows == 4
            browser.find("#status .up")
            browser.click("#clear")
            state(browser, "gender", "male")
            browser.click("#search")
            browser.see("#results h2", "male")
        assert browser.complaints() == []
        browser.leave()
