"""Keep what ranking needs to know about each entry in columns, by slot. Pure."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from llamora.search.arrays import grow_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamora.search.arrays import Mask, Slots

COLUMNS = ("revisions", "live", "mine", "days", "at", "lengths")  # a snapshot names them so
MIN_FREE_SLOTS = 256  # fewer free slots are not worth reading postings again


class SlotTable:
    """Keep the columns of all entries; a column may be longer than there are slots.

    `days` are as date.toordinal() gives them, `at` seconds since the epoch, `lengths` tokens.
    """

    def __init__(self) -> None:
        import numpy as np

        self.slot_of: dict[bytes, int] = {}
        self.ids: list[bytes] = []  # by slot, b"" for a free one
        self.revisions: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.live: Mask = np.zeros(0, dtype=np.bool_)
        self.mine: Mask = np.zeros(0, dtype=np.bool_)
        self.days: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self.at: NDArray[np.float64] = np.zeros(0, dtype=np.float64)
        self.lengths: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._free: list[int] = []

    def __len__(self) -> int:
        """Return the number of slots, free ones included."""
        return len(self.ids)

    @property
    def has_many_free(self) -> bool:
        """Return whether free slots are worth being used again."""
        return len(self._free) > max(MIN_FREE_SLOTS, len(self.ids) // 4)

    def allocate(self, entry_id: bytes, *, reuse: bool) -> int:
        """Give an entry a slot, a free one where `reuse` allows it."""
        if self._free and reuse:
            slot = self._free.pop()
            self.ids[slot] = entry_id
        else:
            slot = len(self.ids)
            self.ids.append(entry_id)
            for name in COLUMNS:
                setattr(self, name, grow_array(getattr(self, name), slot + 1))
        self.slot_of[entry_id] = slot
        return slot

    def release(self, slot: int) -> None:
        """Take the entry of a slot out."""
        self.slot_of.pop(self.ids[slot], None)
        self.live[slot] = False
        self.lengths[slot] = 0
        self.ids[slot] = b""
        self._free.append(slot)

    def find(self, entry_ids: Iterable[bytes]) -> list[int]:
        """Return the slots of those entries that are here."""
        return [self.slot_of[entry_id] for entry_id in entry_ids if entry_id in self.slot_of]

    def mask_of(self, slots: "Slots | list[int]") -> "Mask":
        """Return a mask in which these slots are set."""
        import numpy as np

        mask = np.zeros(len(self), dtype=np.bool_)
        mask[slots] = True
        return mask

    def restore_ids(self, raw: bytes) -> None:
        """Take over the ids of a snapshot, 16 bytes each."""
        self.ids = [raw[start : start + 16] for start in range(0, len(raw), 16)]

    def restore_column(self, name: str, array: "NDArray[Any]") -> None:
        """Take over a column of a snapshot, after the ids. Raises ValueError for another length."""
        if array.shape != (len(self.ids),):
            raise ValueError("a section does not fit the others")
        setattr(self, name, array)
        if name == COLUMNS[-1]:
            live = self.live.tolist()
            self.slot_of = {entry_id: slot for slot, entry_id in enumerate(self.ids) if live[slot]}
            self._free = [slot for slot, is_live in enumerate(live) if not is_live]
