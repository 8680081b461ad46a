"""Define the array types of search. Importing numpy takes long, so functions do it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]  # [dim] or [rows, dim]
    Slots = NDArray[np.intp]
    Mask = NDArray[np.bool_]  # by slot
    Scores = NDArray[np.float64]


def grow_array(array: Any, size: int, fill: float = 0) -> Any:
    """Return `array` with at least `size` rows; it grows by half, so that adding rows is cheap."""
    import numpy as np

    if size <= len(array):
        return array
    shape = (max(size, len(array) + len(array) // 2, 256), *array.shape[1:])
    # The system hands out zeroed pages only once they are written to.
    larger = np.full(shape, fill, dtype=array.dtype) if fill else np.zeros(shape, dtype=array.dtype)
    larger[: len(array)] = array
    return larger
