"""What is made, renewed and given up, and when: each rule in three lines."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from container_kernels.pool.decision import (
    FORGOTTEN,
    LARGEST,
    LATEST,
    MODULE,
    PLAIN,
    RECENT,
    RESERVE,
    SETTLE,
    SOONEST,
    Fill,
    Forget,
    Remove,
    SlotView,
    Snapshot,
    decide,
    estimate,
    expiry,
    next_look,
)
from container_kernels.pool.ledger import Failure, Wanted
from container_kernels.pool.recipe import Recipe

from .samples import IMAGE, NOW, recipe, wanted
from .samples import slot as warm

GIB = 1 << 30
MIB = 1 << 20
TTL = 1000.0


def numbered(number: int, **changes: Any) -> Wanted:
    """Different recipes; the higher the number, the longer ago the use."""
    return wanted(recipe(scratch=f"/{number}"), **{"last_used": NOW - number, **changes})


def view(number: int = 1, of: Wanted | None = None, *, age: float = 0, **changes: Any) -> SlotView:
    made = warm(number, (of or wanted()).recipe, created=NOW - age, expires=NOW - age + TTL)
    return replace(SlotView.of(made), **changes)


def snapshot(*some: Wanted, slots: tuple[SlotView, ...] = (), **changes: Any) -> Snapshot:
    given: dict[str, Any] = {
        "failures": {},
        "images": {each.key: IMAGE for each in some},
        "available": 8 * GIB,
        "used": 0,
        "budget": 8 * GIB,
        "busy": False,
    }
    return Snapshot(wanted=some, slots=slots, **{**given, **changes})


def removed(given: Snapshot, now: float = NOW) -> list[str]:
    return [each.name for each in decide(given, now) if isinstance(each, Remove)]


def reasons(given: Snapshot) -> list[str]:
    return [each.reason for each in decide(given, NOW) if isinstance(each, Remove)]


def filled(given: Snapshot, now: float = NOW) -> list[str]:
    return [each.key for each in decide(given, now) if isinstance(each, Fill)]


def names(*slots: SlotView) -> list[str]:
    return [slot.name for slot in slots]


def test_a_view_has_no_secret() -> None:
    assert "secret" not in repr(SlotView.of(warm()))


def test_nothing_to_do() -> None:
    assert decide(snapshot(), NOW) == []
    assert decide(snapshot(wanted(), slots=(view(),)), NOW) == []
    assert decide(snapshot(wanted(size=2), slots=(view(1), view(2))), NOW) == []


# -- Filling


def test_what_lacks_is_filled_one_at_a_time() -> None:
    three = wanted(size=3)
    assert decide(snapshot(three), NOW) == [Fill(three.key)]
    assert decide(snapshot(three, slots=(view(1), view(2))), NOW) == [Fill(three.key)]


def test_the_most_recently_used_comes_first() -> None:
    one, two, three = numbered(1), numbered(2), numbered(3)
    assert filled(snapshot(three, one, two)) == [one.key]
    assert filled(snapshot(three, one, two, slots=(view(1, one),))) == [two.key]


def test_nothing_is_made_while_a_kernel_starts() -> None:
    assert filled(snapshot(wanted(), busy=True)) == []
    assert removed(snapshot(wanted(), slots=(view(age=TTL),), busy=True)) == names(view())


def test_a_failure_waits_and_lets_others_pass() -> None:
    one, two = numbered(1), numbered(2)
    failure = Failure(1, NOW - 5, "", NOW + 25)
    assert filled(snapshot(one, two, failures={one.key: failure})) == [two.key]
    assert filled(snapshot(one, failures={one.key: failure})) == []
    assert filled(snapshot(one, failures={one.key: failure}), NOW + 25) == [one.key]


def test_a_failure_from_the_future_does_not_wait() -> None:
    assert filled(snapshot(wanted(), failures={wanted().key: Failure(1, NOW + 3600, "", NOW + 3630)}))


@pytest.mark.parametrize("images", [{}, {wanted().key: ""}])
def test_nothing_is_made_of_an_image_that_is_not_there(images: dict[str, str]) -> None:
    assert filled(snapshot(wanted(), images=images)) == []


def test_it_must_fit_into_free_memory_and_budget() -> None:
    measured = wanted(size=2)
    slots = (view(memory=100 * MIB),)
    fits: dict[str, Any] = {"slots": slots, "used": GIB, "budget": GIB + 100 * MIB, "available": RESERVE + 100 * MIB}
    assert filled(snapshot(measured, **fits))
    assert not filled(snapshot(measured, **{**fits, "available": RESERVE + 100 * MIB - 1}))
    assert not filled(snapshot(measured, **{**fits, "budget": GIB + 100 * MIB - 1}))
    assert not filled(snapshot(measured, **{**fits, "used": GIB + 1}))


def test_one_that_does_not_fit_lets_a_smaller_pass() -> None:
    large, small = wanted(recipe(preload=["a", "b", "c"])), numbered(2)
    assert filled(snapshot(large, small, budget=PLAIN)) == [small.key]


def test_memory_is_as_measured_or_else_a_guess() -> None:
    def guess(*modules: str) -> int:
        return estimate(wanted(recipe(preload=list(modules))), ())

    assert guess() == PLAIN
    assert guess("a", "b") == PLAIN + 2 * MODULE
    assert guess(*"abcdefghijklmnop") == LARGEST
    assert estimate(wanted(), [view(1, memory=7), view(2, memory=9), view(3, numbered(1), memory=99)]) == 9
    assert estimate(wanted(), [view(1, memory=0)]) == PLAIN
    assert estimate(wanted(recipe(preload="odd")), ()) == PLAIN


# -- What is no use


def test_slots_that_nobody_wants() -> None:
    stranger = view(1, numbered(5))
    assert decide(snapshot(slots=(stranger,)), NOW) == [Remove(stranger.name, "nobody wants it")]
    assert removed(snapshot(wanted(), slots=(stranger, view(2)))) == names(stranger)


@pytest.mark.parametrize("image", ["sha256:other", ""])
def test_slots_of_another_image(image: str) -> None:
    given = snapshot(wanted(), slots=(view(),), images={wanted().key: image})
    assert reasons(given) == ["its image is another now"]
    assert bool(filled(given)) == bool(image)


def test_slots_whose_image_is_not_known_stay() -> None:
    assert decide(snapshot(wanted(), slots=(view(),), images={}), NOW) == []
    assert reasons(snapshot(wanted(), slots=(view(age=TTL),), images={})) == ["expired"]


def test_expired_slots() -> None:
    given = snapshot(wanted(), slots=(view(age=TTL - 1),))
    assert removed(given) == []
    assert decide(given, NOW + 1) == [Remove(view().name, "expired"), Fill(wanted().key)]


def test_slots_from_the_future() -> None:
    assert removed(snapshot(wanted(), slots=(view(age=-59),))) == []
    assert reasons(snapshot(wanted(), slots=(view(age=-61),))) == ["from the future"]


def test_the_oldest_of_too_many() -> None:
    slots = (view(1, age=10), view(2, age=30), view(3, age=20))
    assert removed(snapshot(wanted(size=2), slots=slots)) == names(slots[1])
    assert removed(snapshot(wanted(size=1), slots=slots)) == names(slots[1], slots[2])
    assert filled(snapshot(wanted(size=1), slots=slots)) == []


# -- Renewal


RENEWED = 0.85 * TTL


def test_a_slot_is_renewed_before_its_end() -> None:
    assert decide(snapshot(wanted(), slots=(view(age=RENEWED - 1),)), NOW) == []
    assert decide(snapshot(wanted(), slots=(view(age=RENEWED + 1),)), NOW) == [Fill(wanted().key)]


def test_the_old_goes_when_the_new_is_there() -> None:
    old, new = view(1, age=RENEWED + 1), view(2)
    assert decide(snapshot(wanted(), slots=(old, new)), NOW) == [Remove(old.name, "there are newer ones")]


def test_the_old_stays_while_the_new_cannot_be_made() -> None:
    old = view(age=RENEWED + 1)
    hindrances: list[dict[str, Any]] = [{"busy": True}, {"available": RESERVE}, {"images": {}}, {"budget": 1}]
    for hindrance in hindrances:
        assert decide(snapshot(wanted(), slots=(old,), **hindrance), NOW) == []


def test_those_to_be_renewed_go_before_older_ones() -> None:
    soon = replace(view(1, age=100), expires=NOW + 1)
    slots = (view(2, age=200), soon, view(3))
    assert removed(snapshot(wanted(size=2), slots=slots)) == names(soon)


def test_two_are_renewed_one_after_the_other() -> None:
    """Played through: at no moment is there no slot, and it comes to rest."""
    two = wanted(size=2)
    slots = [view(1, age=RENEWED + 2), view(2, age=RENEWED + 1)]
    actions = []
    for number in range(3, 20):
        todo = decide(snapshot(two, slots=tuple(slots)), NOW)
        if not todo:
            break
        gone = [each.name for each in todo if isinstance(each, Remove)]
        slots = [slot for slot in slots if slot.name not in gone]
        slots += [view(number) for each in todo if isinstance(each, Fill)]
        actions.append((len(gone), len(slots)))
        assert 2 <= len(slots) <= 3
    assert len(actions) == 3
    assert all(slot.created == NOW for slot in slots)


# -- What is wanted no more


def test_size_zero() -> None:
    off = wanted(size=0)
    assert decide(snapshot(off, slots=(view(),)), NOW) == [
        Remove(view().name, "its pool_size is 0"),
        Forget(off.key, "its pool_size is 0"),
    ]


@pytest.mark.parametrize("age", [FORGOTTEN + 1, -FORGOTTEN - 1])
def test_what_nobody_has_used_for_long(age: float) -> None:
    old = wanted(last_used=NOW - age)
    given = snapshot(old, slots=(view(),))
    assert decide(given, NOW) == [Remove(view().name, "not used for a long time"), Forget(old.key, "not used for a long time")]  # fmt: skip


def test_a_weekend_is_not_long() -> None:
    assert decide(snapshot(wanted(last_used=NOW - 3 * 24 * 3600.0), slots=(view(),)), NOW) == []


def test_only_some_recipes_are_kept_warm() -> None:
    many = [numbered(number) for number in range(RECENT + 2)]
    slots = tuple(view(number, each) for number, each in enumerate(many))
    given = snapshot(*reversed(many), slots=slots)
    assert removed(given) == names(*slots[RECENT:])
    assert set(reasons(given)) == {"others are used more recently"}
    assert filled(given) == []
    assert not any(isinstance(each, Forget) for each in decide(given, NOW))


def test_each_engine_has_its_own_recent_ones() -> None:
    many = [numbered(number) for number in range(RECENT)]
    podman = replace(many[0].recipe, engine="podman")
    other = wanted(podman, last_used=NOW - 100)
    slots = tuple(view(number, each) for number, each in enumerate(many))
    assert filled(snapshot(*many, other, slots=slots)) == [other.key]


# -- Memory that is needed


def test_idle_slots_are_given_up_the_least_recently_used_first() -> None:
    often, rarely = numbered(1), numbered(2, size=2)
    frequent, other_rare, oldest_rare = slots = (
        view(1, often, age=9, memory=50 * MIB),
        view(2, rarely, memory=50 * MIB),
        view(3, rarely, age=5, memory=50 * MIB),
    )
    for short, expected in ((1, 1), (50, 1), (51, 2), (101, 3), (1000, 3)):
        lacking = snapshot(often, rarely, slots=slots, available=RESERVE - short * MIB)
        over = snapshot(often, rarely, slots=slots, used=GIB + short * MIB, budget=GIB)
        for given in (lacking, over):
            assert removed(given) == names(oldest_rare, other_rare, frequent)[:expected]
            assert set(reasons(given)) == {"its memory is needed"}
            assert filled(given) == []


def test_enough_is_enough() -> None:
    assert removed(snapshot(wanted(), slots=(view(),), available=RESERVE, used=GIB, budget=GIB)) == []


def test_what_goes_anyway_makes_room_first() -> None:
    stranger = view(1, numbered(5), memory=60 * MIB)
    assert removed(snapshot(wanted(), slots=(stranger, view(2)), available=RESERVE - 60 * MIB)) == names(stranger)
    assert len(removed(snapshot(wanted(), slots=(stranger, view(2)), available=RESERVE - 61 * MIB))) == 2


def test_a_slot_that_nobody_has_measured_counts_as_guessed() -> None:
    slots = (view(1, memory=0), view(2, memory=0))
    given = snapshot(wanted(size=2), slots=slots, available=RESERVE - PLAIN)
    assert removed(given) == names(slots[0])


def test_memory_is_given_back_while_a_kernel_starts() -> None:
    assert removed(snapshot(wanted(), slots=(view(),), available=0, busy=True)) == names(view())


def test_nothing_is_taken_away_twice() -> None:
    slots = (view(1, age=TTL), view(2, age=5), view(3), view(4, numbered(9)))
    all_removed = removed(snapshot(wanted(), slots=slots, available=0))
    assert sorted(all_removed) == sorted(names(*slots))


# -- When to look again


def test_the_next_look_is_when_something_changes() -> None:
    assert next_look(snapshot(), NOW) == LATEST
    assert next_look(snapshot(wanted(), slots=(view(age=RENEWED - 7),)), NOW) == pytest.approx(7)
    assert next_look(snapshot(wanted(), slots=(view(age=TTL - 9),)), NOW) == pytest.approx(9)
    assert next_look(snapshot(wanted(), failures={wanted().key: Failure(1, NOW, "", NOW + 30)}), NOW) == 30
    assert next_look(snapshot(wanted(last_used=NOW - FORGOTTEN + 20)), NOW) == pytest.approx(20)
    assert next_look(snapshot(wanted(), busy=True), NOW) == SETTLE


def test_the_next_look_is_neither_at_once_nor_never() -> None:
    assert next_look(snapshot(wanted(), slots=(view(age=TTL - 0.01),)), NOW) == SOONEST
    assert next_look(snapshot(wanted(), slots=(view(age=2 * TTL),)), NOW) == LATEST
    assert next_look(snapshot(wanted(), slots=(view(age=0, expires=NOW + 1e12),)), NOW) == LATEST


@pytest.mark.parametrize("seed", range(50))
def test_nothing_changes_before_the_next_look(seed: int) -> None:
    """Whatever there is: when all is done, time alone changes nothing until then."""
    source = random.Random(seed)
    some = [numbered(number, size=source.randint(1, 2), last_used=NOW - source.choice([1, FORGOTTEN - 30])) for number in range(3)]  # fmt: skip
    slots = tuple(view(number, source.choice(some), age=source.uniform(0, TTL)) for number in range(6))
    failures = {each.key: Failure(1, NOW, "", NOW + source.uniform(1, 50)) for each in some}
    given = snapshot(*some, slots=slots, failures=failures)
    gone = {each.name for each in decide(given, NOW) if isinstance(each, Remove)}
    settled = replace(given, slots=tuple(slot for slot in slots if slot.name not in gone))
    assert decide(settled, NOW) == []
    wait = next_look(settled, NOW)
    assert wait == SOONEST or decide(settled, NOW + wait - 0.001) == []


def test_slots_made_together_do_not_end_together() -> None:
    source = random.Random(1)
    ends = [expiry(NOW, TTL, source) - NOW for _ in range(1000)]
    assert 0.85 * TTL <= min(ends) < 0.86 * TTL
    assert 0.99 * TTL < max(ends) <= TTL


def test_a_recipe_is_what_is_filled() -> None:
    """A key leads back to its recipe."""
    (key,) = filled(snapshot(wanted()))
    assert Recipe.from_json(wanted().recipe.to_json()).key == key
