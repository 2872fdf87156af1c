"""A captioner for threads: the photos that come while it is at work are captioned next, all at once."""

from concurrent.futures import Future
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from function.captioner import Caption, Captioner

Asked = tuple[NDArray[np.uint8], Future[list[list[Caption]]]]


class Together(Captioner):
    """A captioner whose `caption` is called by several threads.

    The decoder takes ten photos in little more time than one, so nobody waits for company, but whoever comes while
    others are served is served with all who wait.
    """

    def __init__(self, captioner: Captioner) -> None:
        super().__init__(captioner.bundle, captioner.sentence_case)
        self._captioner = captioner
        self._waiting: list[Asked] = []
        self._adding = Lock()
        self._at_work = Lock()

    def caption(self, pixels: NDArray[np.uint8], beams: int | None = None) -> list[list[Caption]]:
        """As Captioner.caption; only photos for which no `beams` are asked go together."""
        if beams is not None:
            return self._captioner.caption(pixels, beams)
        mine: Future[list[list[Caption]]] = Future()
        with self._adding:
            self._waiting.append((pixels, mine))
        with self._at_work:
            if not mine.done():  # else somebody before me has captioned mine too
                with self._adding:
                    served, self._waiting = self._waiting, []
                self._serve(served)
        return mine.result()

    def _serve(self, served: list[Asked]) -> None:
        try:
            captions = iter(self._captioner.caption(np.concatenate([pixels for pixels, _ in served])))
        except Exception as error:
            if len(served) == 1:
                served[0][1].set_exception(error)
            else:
                for one in served:  # who made it fail shall fail alone
                    self._serve([one])
        else:
            for pixels, future in served:
                future.set_result([next(captions) for _ in pixels])
