"""Sentences for the operator, each told once."""

from gateway.backends.onnxruntime.notices import Notices


def test_a_sentence_is_told_once() -> None:
    """Loading the same model again does not repeat what it was told."""
    heard: list[str] = []
    notices = Notices(heard.append)
    for sentence in ("a", "b", "a", "b"):
        notices.say(sentence)
    assert heard == ["a", "b"]


def test_only_the_latest_sentences_are_remembered() -> None:
    """However many models come and go, the memory of what was said is bounded; the oldest is forgotten."""
    heard: list[str] = []
    notices = Notices(heard.append, remembered=2)
    for sentence in ("a", "b", "a", "c", "a", "b"):
        notices.say(sentence)
    assert heard == ["a", "b", "c", "b"]
    assert len(notices) == 2


def test_nobody_need_listen() -> None:
    """Without a listener nothing is kept."""
    notices = Notices(None)
    notices.say("a")
    assert len(notices) == 0
