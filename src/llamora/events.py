"""Tell the parts of a process what happened, without their knowing one another."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class Topic(IntEnum):
    """What an event is about."""

    SIGNED_OUT = 1
    """The last session of `user_id` in this process has closed: forget what is open for them."""


@dataclass(slots=True, frozen=True)
class Event:
    """Something that happened; it holds ids and numbers only."""

    topic: Topic
    user_id: bytes = b""


Subscriber = Callable[[Event], None]


class EventBus:
    """Pass events to their subscribers, on the event loop and at once."""

    def __init__(self) -> None:
        self._subscribers: defaultdict[Topic, list[Subscriber]] = defaultdict(list)

    def subscribe(self, topic: Topic, subscriber: Subscriber) -> None:
        """Call `subscriber` with every event of a topic, in the order of subscription."""
        self._subscribers[topic].append(subscriber)

    def publish(self, event: Event) -> None:
        """Call the subscribers of the event's topic; what they raise reaches the publisher."""
        for subscriber in self._subscribers[event.topic]:
            subscriber(event)


class ChangeSignal:
    """A signal that wakes all its waiters whenever any process commits to the store."""

    def __init__(self) -> None:
        self._next_change = asyncio.Event()

    @property
    def next_change(self) -> asyncio.Event:
        """The event that the next change sets.

        Take it before reading the store, so that no change is missed between reading and waiting.
        """
        return self._next_change

    def notify(self) -> None:
        """Wake all waiters."""
        current, self._next_change = self._next_change, asyncio.Event()
        current.set()
