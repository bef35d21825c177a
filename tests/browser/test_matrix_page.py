"""The page of ``calico-debug matrix``, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calico_debug.cli.render.terminal import safe
from tests.cli.worlds import run
from tests.matrix.worlds import HOSTILE, NAMESPACES, hostile

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

pytestmark = pytest.mark.browser

RECORDING = Path(__file__).parents[1] / "data" / "v3.32.1-nft.tar.xz"


def opened(browser: Chrome, file: Path, *arguments: str) -> None:
    ran = run("matrix", *arguments, "--html", str(file))
    assert (ran.code, ran.err) == (0, "")
    browser.get_log("browser")
    browser.get(file.as_uri())


def all_of(browser: Chrome, selector: str) -> list[WebElement]:
    return browser.find_elements("css selector", selector)


def cell(browser: Chrome, label: str) -> WebElement:
    """The cell whose accessible name begins so."""
    found = [one for one in all_of(browser, "td button") if one.accessible_name.startswith(label)]
    assert len(found) == 1, [one.accessible_name for one in all_of(browser, "td button")]
    return found[0]


def reason(browser: Chrome) -> str:
    return browser.find_element("id", "reason").text


@pytest.fixture
def page(browser: Chrome, tmp_path: Path) -> Chrome:
    opened(browser, tmp_path / "matrix.html", "--bundle", str(RECORDING))
    return browser


def test_nothing_is_loaded_and_nothing_is_wrong(page: Chrome) -> None:
    assert page.get_log("browser") == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_a_cell_tells_its_reason(page: Chrome, pictures: Path) -> None:
    cell(page, "client/client-5f8b to management-ui/mgmt-ui-79f4, tcp 80: denied").click()
    told = reason(page)
    assert "DENIED egress: end of tier: client/platform.client-egress selects the pod" in told
    assert "closest: client/platform.client-egress, rule 0 (Allow TCP to namespace stars, ports 80, 6379)" in told
    cell(page, "client/client-5f8b to stars/frontend-77cd, tcp 80: allowed").click()
    assert "ALLOWED ingress: tier platform, by NetworkPolicy stars/platform.stars-frontend, rule 0" in reason(page)
    assert len(all_of(page, "button[aria-pressed=true]")) == 1
    page.save_screenshot(str(pictures / "matrix.png"))
    assert (pictures / "matrix.png").stat().st_size > 10_000


def test_equals_are_one_row_and_are_listed(page: Chrome) -> None:
    cell(page, "yaobank/database-0 and 2 more to stars/backend-6c9d, tcp 80").click()
    assert "From: yaobank/database-0, yaobank/summary-a-66c8, yaobank/summary-b-66c8" in reason(page)


def test_namespaces_count_their_pairs(browser: Chrome, tmp_path: Path) -> None:
    opened(browser, tmp_path / "matrix.html", "--bundle", str(RECORDING), "--by", "namespaces")
    assert cell(browser, "stars to yaobank, tcp 80: differs").text == "~2/8"
    cell(browser, "stars to yaobank, tcp 80: differs").click()
    assert "x denied, 6 pairs of pods" in reason(browser)
    assert "+ allowed, 2 pairs of pods" in reason(browser)


def test_colour_is_not_all(page: Chrome) -> None:
    """Every cell has a symbol, and the same symbol has the same meaning everywhere."""
    seen = {(one.text, one.accessible_name.rpartition(": ")[2]) for one in all_of(page, "td button")}
    assert seen == {("+", "allowed"), ("x", "denied")}
    assert {one.text for one in all_of(page, "#legend li")} >= {"+ allowed", "x denied", "? undetermined"}


def test_tables_say_what_is_what(page: Chrome) -> None:
    table = all_of(page, "main table")[0]
    assert table.aria_role == "table"
    assert table.find_element("css selector", "caption").text.startswith("tcp 53, tcp 9000")
    assert {one.get_attribute("scope") for one in table.find_elements("css selector", "thead th")} == {"col"}
    assert {one.get_attribute("scope") for one in table.find_elements("css selector", "tbody th")} == {"row"}
    assert page.find_element("id", "reason").get_attribute("aria-live") == "polite"


def test_the_keyboard_is_enough(page: Chrome) -> None:
    from selenium.webdriver.common.keys import Keys

    reachable = all_of(page, "main button[tabindex='0']")
    assert len(reachable) == 1
    reachable[0].send_keys(Keys.ARROW_DOWN)
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    focused = page.switch_to.active_element
    assert focused.accessible_name.startswith("attack/toolbox and 2 more to kube-system/coredns-0, tcp 53")
    focused.send_keys(Keys.ENTER)
    assert "attack/toolbox and 2 more to kube-system/coredns-0" in reason(page)
    focused.send_keys(Keys.ARROW_UP)
    assert len(all_of(page, "main button[tabindex='0']")) == 1
    # Beyond the edge there is nothing to go to.
    page.switch_to.active_element.send_keys(Keys.ARROW_UP)
    assert page.switch_to.active_element.accessible_name.startswith("attack/rogue to kube-system/coredns-0")


def test_filters(page: Chrome) -> None:
    from selenium.webdriver.support.ui import Select

    def choose(name: str, value: str) -> None:
        Select(page.find_element("id", name)).select_by_value(value)

    choose("port", "6379")
    assert [one.text for one in all_of(page, "caption")] == ["tcp 6379: rows connect to columns"]
    choose("from", "client")
    choose("to", "stars")
    assert [one.text for one in all_of(page, "tbody th")] == ["client/client-5f8b"]
    assert [one.text for one in all_of(page, "tbody button")] == ["+", "x"]
    assert page.find_element("id", "shown").text == "1 of 6 tables, 1 of 6 rows, 2 of 8 columns"
    choose("protocol", "udp")
    assert all_of(page, "table") == []


def test_names_are_only_names(browser: Chrome, tmp_path: Path) -> None:
    opened(browser, tmp_path / "hostile.html", "--bundle", str(hostile(tmp_path / "bundle")), "--by", "namespaces")
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hurt") is None
    assert len(all_of(browser, "img, b, script:not([type]):not(:last-of-type)")) == 0
    rows = [one.get_attribute("textContent") for one in all_of(browser, "tbody th")]
    assert sorted(rows) == sorted(map(safe, NAMESPACES))
    for button in all_of(browser, "td button"):
        button.click()
        told = browser.find_element("id", "reason").get_attribute("textContent")
        names = button.accessible_name.partition(", tcp")[0].split(" to ")
        assert all(safe(HOSTILE[[*map(safe, NAMESPACES)].index(name)]) in told for name in names)
        if button.text == "x":
            assert f"by GlobalNetworkPolicy {HOSTILE[0]}, rule 0" in told
    assert {button.text for button in all_of(browser, "td button")} == {"+", "x"}
    assert browser.execute_script("return window.hurt") is None


def test_the_page_lets_nothing_else_run(browser: Chrome, tmp_path: Path) -> None:
    """Were a name ever taken for markup, the policy of content security would still keep it from running."""
    opened(browser, tmp_path / "matrix.html", "--bundle", str(RECORDING))
    browser.execute_script(
        "const made = document.createElement('script'); made.textContent = 'window.hurt = 1';"
        "document.body.append(made);"
        "const image = document.createElement('img'); image.src = 'http://127.0.0.1:9/x'; document.body.append(image);"
    )
    assert browser.execute_script("return window.hurt") is None
    refused = [entry["message"] for entry in browser.get_log("browser")]
    assert len([message for message in refused if "Content Security Policy" in message]) == 2
