"""Where the time of an acknowledgement goes inside the sequencer, for `fairstrike bench --offered`."""

from sequencer.queue.driver import TickTimes


def stages_of(ticks: list[TickTimes]) -> dict[str, list[float]]:
    """[median, 99th percentile] in ms of what an order of these ticks has spent in each stage, and in `all` of them.

    `queue`: until its tick began; `apply`: in the engine; `wait`: acknowledgements are made, and the log has the tick
    before; `log`: until the tick was durable; `acks`: until they were sent.
    """
    spent: dict[str, list[int]] = {}
    for tick in ticks:
        orders = len(tick.arrived)
        spent.setdefault("all", []).extend(tick.told - arrived for arrived in tick.arrived)
        spent.setdefault("queue", []).extend(tick.began - arrived for arrived in tick.arrived)
        stages = {
            "apply": tick.applied - tick.began,
            "wait": tick.appending - tick.applied,
            "log": tick.durable - tick.appending,
            "acks": tick.told - tick.durable,
        }
        for name, took in stages.items():
            spent.setdefault(name, []).extend([took] * orders)
    out = {}
    for name, all_ns in spent.items():
        all_ns.sort()
        at = (len(all_ns) // 2, len(all_ns) * 99 // 100)
        out[name] = [round(all_ns[one] * 1e-6, 3) for one in at]
    return out
