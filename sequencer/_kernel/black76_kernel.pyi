Row = tuple[int, tuple[int, ...]]

def rows(
    forward: int,
    terms: list[int],
    variances: dict[int, int],
    moves: tuple[tuple[int, int], ...],
    left: tuple[int, int],
    extreme_weight_ppm: int,
    /,
) -> list[Row] | None: ...
def variances(
    terms: list[int],
    reports: list[tuple[int, int, int, int, int, int, int]],
    forward: int,
    index: int,
    remaining_s: int,
    low: int,
    high: int,
    variance_spread_max_ppm: int,
    mark_spread_max_ppm: int,
    /,
) -> dict[int, int] | None: ...
def page_words(terms: list[int], rows: list[Row], /) -> bytes | None: ...
def evaluate(name: str, x: int, y: int, /) -> int | None: ...
