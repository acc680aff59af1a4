"""What publishing several images moves, when all of them are published."""

import threading

from pipeline.core.resource import Transfer
from pipeline.resources.image.outlook import QUESTIONS, Outlook, side_by_side, together

NEW = Transfer(push_bytes=70)


def test_a_layer_goes_to_a_registry_once_with_the_first_image_that_wants_it() -> None:
    own = ("own", Transfer(push_bytes=5))

    first, second = together(
        [Outlook("main", Transfer(), (("shared", NEW), own)), Outlook("main", Transfer(), (("shared", NEW),))]
    )

    assert (first, second) == (Transfer(push_bytes=75), Transfer(reused_bytes=70))


def test_every_registry_gets_its_own_copy() -> None:
    moved = together([Outlook(place, Transfer(), (("shared", NEW),)) for place in ("main", "other")])

    assert [one.push_bytes for one in moved] == [70, 70]


def test_what_comes_straight_from_a_source_for_two_images_is_read_once() -> None:
    straight = Transfer(download_bytes=70, push_bytes=70, exact=False)

    moved = list(together([Outlook("main", Transfer(), (("shared", straight),))] * 2))

    assert [one.download_bytes for one in moved] == [70, 0]


def test_a_layer_that_is_there_costs_nobody_anything() -> None:
    there = Transfer(reused_bytes=70)

    moved = list(together([Outlook("main", Transfer(reused_bytes=9), (("shared", there),))] * 2))

    assert moved == [Transfer(reused_bytes=79)] * 2


def test_questions_are_answered_in_order_a_few_at_a_time() -> None:
    asking, most, guard = 0, 0, threading.Lock()
    full = threading.Barrier(QUESTIONS)

    def ask(number: int) -> int:
        nonlocal asking, most
        with guard:
            asking += 1
            most = max(most, asking)
        full.wait(10)
        with guard:
            asking -= 1
        return number * number

    assert side_by_side(ask, range(3 * QUESTIONS)) == [number * number for number in range(3 * QUESTIONS)]
    assert most == QUESTIONS
