"""The page about rollouts in a real browser, over the real administration port."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from playwright.async_api import expect

from gateway.core.rollout_control import Verb
from gateway.rollouts.phases import Phase
from gateway.rollouts.state import FileView, RolloutState
from tests.browser import scenes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.conftest import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")

FRAUD: Final = "#/fraud-score"
STATES: Final = (
    scenes.shadowing,
    scenes.baking,
    scenes.awaiting,
    scenes.holding,
    scenes.aborted,
    scenes.promoted,
)


async def test_the_list_is_live(site: Site) -> None:
    """Every rollout is there and changes as the gateway says; a change of phase is said aloud."""
    await site.open(scenes.baking(), replace(scenes.promoted(), name="other"))
    cards = site.page.locator("li.card")
    await expect(cards).to_have_count(2)
    await expect(cards.first).to_contain_text("step 2 of 6: Canary 5 %")
    await expect(cards.first).to_contain_text("canary 5 %")
    await expect(site.page.locator("#stream")).to_have_text("live")
    site.change(scenes.aborted())
    await expect(cards.first).to_contain_text("worse than stable")
    await expect(site.page.locator("#said")).to_contain_text("fraud-score: aborted")
    await expect(cards.nth(1)).to_contain_text("promoted")


async def test_splits_and_refused_files(site: Site) -> None:
    """They are on the same page; a file that is not in force says why."""
    arms = [
        {"name": "1", "version": 1, "weight_ppm": 900_000},
        {"name": "2", "version": 2, "weight_ppm": 100_000},
    ]
    shadows = [{"name": "3", "version": 3, "sample_ppm": 200_000}]
    split = {"model": "digits", "error": "", "arms": arms, "shadows": shadows}
    refused = {"path": "bad.yaml", "name": "", "hash": "", "active_hash": "", "error": "line 3: no gate 'x'"}
    site.rollouts.plain_splits, site.rollouts.seen_files = [split], [refused]
    await site.open()
    main = site.page.locator("main")
    await expect(main).to_contain_text("bad.yaml is not in force: line 3: no gate 'x'")
    await expect(main.locator("li.card")).to_contain_text("version 2 10 %")
    await expect(main.locator("li.card")).to_contain_text("shadow: version 3, 20 % of requests")


async def test_a_rollout_in_full(site: Site) -> None:
    """Its steps, its arms with intervals, its gates against their bounds, its history and its audit log."""
    await site.open(scenes.baking())
    await site.page.get_by_role("link", name="fraud-score").click()
    main = site.page.locator("main")
    await expect(main.get_by_role("heading", name="fraud-score")).to_be_visible()
    step = main.locator("[aria-current=step]")
    await expect(step).to_contain_text("Canary 5 %")
    await expect(step).to_contain_text("served 7.2 min of 10 min, at most 2 h")
    errors = main.locator("table.arms tr", has_text="Errors").locator("td")
    await expect(errors.nth(1)).to_have_text("0.2 %0.0778 % to 0.513 %")
    for text in ("1.5.0", "Over 40 ms", "every gate passed", "approval approve"):
        await expect(main).to_contain_text(text)
    plot = main.locator("[data-key='safety.errors'] svg.plot")
    await expect(plot.locator(".bound")).to_have_count(2)
    described = re.compile(
        r"^Evidence in nats\. For harm: -?\d\.\d of 7\.3\. For pass: -?\d\.\d of \d\.\d\.$"
    )
    await expect(plot).to_have_attribute("aria-label", described)


async def test_versions_are_named_once(site: Site) -> None:
    """A label or a target that is the number itself adds nothing; no failure is a rate from 0."""
    state = replace(scenes.baking(), labels={"stable": "1", "canary": "2"})
    await site.open(state, at=FRAUD)
    await expect(site.page.locator("table.arms tbody tr").first.locator("td").first).to_have_text(
        "version 1 @champion"
    )
    counts = {name: scenes.document(state)["arms"][name] | {"errors": 0} for name in ("stable", "canary")}
    site.change(state, arms=counts)
    errors = site.page.locator("table.arms tr", has_text="Errors").locator("td").nth(1)
    await expect(errors).to_have_text("0 %0 % to 0.192 %")


async def test_disagreement_by_slice(site: Site) -> None:
    """The worst slice comes first."""
    await site.open(scenes.shadowing(), at=FRAUD)
    rows = site.page.locator("table.slices tbody tr")
    await expect(rows).to_have_count(3)
    await expect(rows.first).to_contain_text("other4002 %")


async def test_evidence_is_plotted_as_it_comes(site: Site) -> None:
    """Each document adds a point to the curves."""
    state = scenes.baking()
    await site.open(state, at=FRAUD)
    curve = site.page.locator("[data-key='safety.errors'] polyline.harm")
    for points in (2, 3):
        state = scenes.seen(state, scenes.counted(canary_errors=3))
        site.change(state)
        await expect(curve).to_have_attribute("points", re.compile(rf"^(\S+,\S+( |$)){{{points}}}$"))


async def test_approval(site: Site) -> None:
    """It comes from the session's user, for the evidence that was on the screen when the dialog opened."""
    await site.open(scenes.awaiting(), at=site.login())
    await expect(site.page.locator("#session")).to_contain_text("Session of anna")
    assert "session" not in site.page.url
    await site.page.get_by_role("link", name="fraud-score").click()
    await site.page.get_by_role("button", name="Approve").click()
    dialog = site.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("approval 2 of 2")
    await expect(dialog).to_contain_text(scenes.EVIDENCE)
    site.change(replace(scenes.awaiting(), approval_hash="other", reason="approval 0 of 2"))
    await expect(site.page.locator(".headline")).to_contain_text("approval 0 of 2")
    await dialog.get_by_label("Reason").fill("looks fine")
    await dialog.get_by_role("button", name="Approve").click()
    await expect(dialog).to_be_hidden()
    (command,) = site.rollouts.commands
    assert (command.verb, command.rollout) == (Verb.APPROVE, "fraud-score")
    assert (command.actor.name, command.actor.is_known) == ("anna", True)
    assert (command.evidence_hash, command.reason) == (scenes.EVIDENCE, "looks fine")


async def test_without_a_session(site: Site) -> None:
    """Approve is off, and the page says how to open one; what anybody may do is done by nobody known."""
    await site.open(scenes.awaiting(), at=FRAUD)
    await expect(site.page.get_by_role("button", name="Approve")).to_be_disabled()
    await expect(site.page.locator("#session")).to_contain_text("gateway rollout login")
    await confirmed(site, "Pause", "keeps 5 % of the keys")
    await confirmed(
        site, "Abort", "The canary (version 2) loses its 5 % of the keys at once; stable (version 1)"
    )
    assert [(c.verb, c.actor.is_known) for c in site.rollouts.commands] == [
        (Verb.PAUSE, False),
        (Verb.ABORT, False),
    ]


async def confirmed(site: Site, button: str, says: str) -> None:
    """Press a button, read what the dialog says, and go on."""
    dialog = site.page.get_by_role("dialog")
    await site.page.get_by_role("button", name=button).click()
    await expect(dialog).to_contain_text(says)
    await dialog.get_by_role("button", name=button).click()
    await expect(dialog).to_be_hidden()


async def test_a_session_that_is_over(site: Site) -> None:
    """The dialog says so, and the page goes back to having none."""
    await site.open(scenes.awaiting(), at=site.login())
    await site.page.get_by_role("link", name="fraud-score").click()
    await site.page.get_by_role("button", name="Approve").click()
    site.end_sessions()
    dialog = site.page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Approve").click()
    await expect(dialog).to_contain_text("this session is over")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(site.page.get_by_role("button", name="Approve")).to_be_disabled()
    assert site.rollouts.commands == []
    site.console.expects("403 (Forbidden)")


async def test_a_session_lasts_as_long_as_its_tab(site: Site) -> None:
    """A reload keeps it, and its end forgets it."""
    await site.open(scenes.awaiting(), at=site.login())
    await expect(site.page.locator("#session")).to_contain_text("anna")
    await site.page.reload()
    await expect(site.page.locator("#session")).to_contain_text("anna")
    await site.page.get_by_role("button", name="End").click()
    await expect(site.page.locator("#session")).to_contain_text("No session")
    assert await site.page.evaluate("sessionStorage.length") == 0


@pytest.mark.parametrize(
    ("scene", "buttons"),
    [
        (scenes.baking, ["Pause", "Promote", "Abort"]),
        (scenes.awaiting, ["Approve", "Pause", "Promote", "Abort"]),
        (scenes.holding, ["Resume", "Promote", "Abort"]),
        (scenes.aborted, ["Retry"]),
        (scenes.promoted, []),
        (lambda: scenes.begun(5, Phase.ROLLBACK_WINDOW), ["Roll back"]),
    ],
)
async def test_buttons_that_make_sense(
    site: Site, scene: Callable[[], RolloutState], buttons: list[str]
) -> None:
    """Others are not there."""
    await site.open(scene(), at=FRAUD)
    await expect(site.page.get_by_role("heading", name="fraud-score")).to_be_visible()
    await expect(site.page.locator("main button")).to_have_text(buttons)


async def test_refusal_is_told(site: Site) -> None:
    """The dialog stays open with the gateway's words."""
    await site.open(scenes.baking(), at=FRAUD)
    await site.page.get_by_role("button", name="Pause").click()
    del site.rollouts.documents["fraud-score"]
    dialog = site.page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Pause").click()
    await expect(dialog).to_contain_text("no rollout 'fraud-score'")
    site.console.expects("404 (Not Found)")


async def test_keyboard(site: Site) -> None:
    """A button opens its dialog by Enter, Escape closes it with nothing done, and focus is where it was."""
    await site.open(scenes.baking(), at=FRAUD)
    pause = site.page.get_by_role("button", name="Pause")
    await pause.focus()
    await site.page.keyboard.press("Enter")
    dialog = site.page.get_by_role("dialog", name="Pause fraud-score?")
    await expect(dialog.get_by_label("Reason")).to_be_focused()
    await site.page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(pause).to_be_focused()
    site.change(scenes.seen(scenes.baking(), scenes.counted()), reason="changed meanwhile")
    await expect(site.page.locator(".headline")).to_contain_text("changed meanwhile")
    await expect(pause).to_be_focused()
    assert site.rollouts.commands == []


HOSTILE: Final = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


async def test_what_others_write_is_text(site: Site) -> None:
    """Names, reasons, errors and slices from files and registries are shown as they are."""
    state = scenes.shadowing()
    slices = {HOSTILE: {HOSTILE: [10, 1]}}
    document = scenes.document(replace(state, name=HOSTILE, reason=HOSTILE, file=FileView(error=HOSTILE)))
    document["model"] = HOSTILE
    document["shadow_counts"]["canary"]["slices"] = slices
    document["targets"]["canary"]["label"] = HOSTILE
    document["gates"][0]["reason"] = HOSTILE
    document["history"][0]["reason"] = HOSTILE
    await site.open()
    site.rollouts.documents[HOSTILE] = document
    await site.page.reload()
    await site.page.get_by_role("link", name=HOSTILE).click()
    await expect(site.page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    await expect(site.page.locator("table.slices tbody th")).to_have_text(HOSTILE)
    assert await site.page.locator("main img, main script").count() == 0
    await confirmed(site, "Abort", "The canary")
    assert site.rollouts.commands[0].rollout == HOSTILE
    assert await site.page.title() == f"{HOSTILE} - Rollouts"


async def test_the_policy_holds(site: Site) -> None:
    """Markup that got in all the same would not run, and nothing is taken from elsewhere."""
    await site.open(scenes.baking())
    refused = await site.page.evaluate(
        """() => {
            const script = document.createElement("script");
            try { script.textContent = "window.ran = true"; document.body.append(script); } catch {}
            try { document.body.innerHTML = "<p>replaced</p>"; } catch { return !window.ran; }
            return false;
        }"""
    )
    assert refused
    site.console.expects("Content Security Policy", "TrustedHTML", "TrustedScript")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone(site: Site, scheme: str) -> None:
    """Nothing is wider than a narrow screen, in any phase and in the dialog."""
    await site.page.set_viewport_size({"width": 360, "height": 740})
    await site.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await site.open(*[replace(scene(), name=scene.__name__ + "-" * 40) for scene in STATES])
    await expect(site.page.locator("li.card")).to_have_count(len(STATES))
    await assert_fits(site)
    for name in list(site.rollouts.documents):
        await site.page.evaluate("name => { location.hash = `#/${name}`; }", name)
        await expect(site.page.get_by_role("heading", level=1)).to_have_text(name)
        await assert_fits(site)
    await site.page.evaluate("name => { location.hash = `#/${name}`; }", f"baking{'-' * 40}")
    await site.page.get_by_role("button", name="Abort").click()
    await expect(site.page.get_by_role("dialog")).to_be_visible()
    await assert_fits(site)


async def assert_fits(site: Site) -> None:
    """Nothing makes the page scroll sideways."""
    assert await site.page.evaluate("document.documentElement.scrollWidth") == 360


async def test_a_stream_that_breaks(site: Site) -> None:
    """The page says that what it shows is old, asks again by itself, and forgets what is gone."""
    await site.page.clock.install()
    await site.open(scenes.baking(), replace(scenes.promoted(), name="gone"))
    await expect(site.page.locator("li.card")).to_have_count(2)
    await site.page.route("**/rollouts/events", lambda route: route.abort())
    del site.rollouts.documents["gone"]
    await site.page.clock.run_for(40_000)
    stale = site.page.locator("#stale")
    await expect(stale).to_contain_text("does not answer; trying again. This is what was seen on")
    await expect(site.page.locator("#stream")).to_have_text("stale")
    await expect(site.page.locator("li.card")).to_have_count(2)
    await site.page.unroute("**/rollouts/events")
    await site.page.clock.run_for(4_000)
    await expect(site.page.locator("#stream")).to_have_text("live")
    await expect(stale).to_be_hidden()
    await expect(site.page.locator("li.card")).to_have_count(1)
    site.console.expects("net::ERR_FAILED")
