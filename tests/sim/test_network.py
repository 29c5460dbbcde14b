"""The pretend network's own manners and faults."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.sim.network import QUEUE_MESSAGES_MAX, Frames, Hub, Line, NetworkFaults, SimNetwork

SEEDS = range(50)


def numbers(frames: list[Frames]) -> list[int]:
    return [int(each[0]) for each in frames]


def send(line: Line, messages: range) -> None:
    for number in messages:
        assert line.send([b"%d" % number])


def drain(end: Callable[[], Frames | None]) -> list[Frames]:
    return list(iter(end, None))


def drain_hub(hub: Hub) -> list[tuple[bytes, Frames]]:
    return list(iter(hub.receive, None))


def run(network: SimNetwork) -> None:
    """Turn until nothing is under way."""
    for _ in range(5000):
        if network.quiet:
            return
        network.turn()
    raise AssertionError("the network does not come to rest")


def test_a_message_goes_up_and_its_answer_comes_down() -> None:
    network = SimNetwork(Random(0))
    hub, line = network.listen("ipc://a"), network.connect("ipc://a")
    line.send([b"hello", b"", b"frames"])
    assert hub.receive() is None, "nothing moves without a turn"
    network.turn()
    found = hub.receive()
    assert found is not None
    peer, frames = found
    assert frames == [b"hello", b"", b"frames"]
    hub.send(peer, [b"welcome"])
    assert line.receive() is None
    network.turn()
    assert line.receive() == [b"welcome"]
    assert line.receive() is None
    assert hub.receive() is None


def test_without_faults_everything_arrives_once_and_in_order() -> None:
    network = SimNetwork(Random(0))
    hub, line = network.listen("ipc://a"), network.connect("ipc://a")
    send(line, range(500))
    run(network)
    got = drain_hub(hub)
    assert numbers([frames for _, frames in got]) == list(range(500))
    for peer, frames in got:
        hub.send(peer, frames)
    run(network)
    assert numbers(drain(line.receive)) == list(range(500))


def test_messages_queue_up_to_a_limit_and_go_when_somebody_listens() -> None:
    network = SimNetwork(Random(0))
    line = network.connect("ipc://a")
    send(line, range(QUEUE_MESSAGES_MAX))
    assert not line.send([b"one too many"])
    network.turn()
    assert not line.send([b"one too many"])
    assert network.quiet, "nobody listens"
    hub = network.listen("ipc://a")
    assert not network.quiet
    run(network)
    assert numbers([frames for _, frames in drain_hub(hub)]) == list(range(QUEUE_MESSAGES_MAX))


def test_a_hub_that_does_not_read_blocks_its_lines_in_the_end() -> None:
    network = SimNetwork(Random(0))
    hub, line = network.listen("ipc://a"), network.connect("ipc://a")
    sent = 0
    while line.send([b"%d" % sent]):
        sent += 1
        network.turn()
    assert sent == 3 * QUEUE_MESSAGES_MAX, "its own queue, the way, the hub's"
    got: list[int] = []
    while len(got) < sent:
        network.turn()
        got += numbers([frames for _, frames in drain_hub(hub)])
    assert got == list(range(sent))


def test_a_line_that_does_not_read_costs_a_hub_a_bounded_number_of_messages() -> None:
    network = SimNetwork(Random(0))
    hub, line = network.listen("ipc://a"), network.connect("ipc://a")
    network.turn()
    (peer,) = hub.connections
    for number in range(5 * QUEUE_MESSAGES_MAX):
        hub.send(peer, [b"%d" % number])
        network.turn()
    assert numbers(drain(line.receive)) == list(range(QUEUE_MESSAGES_MAX))
    run(network)
    assert len(drain(line.receive)) == QUEUE_MESSAGES_MAX


def test_an_unknown_peer_is_dropped_silently() -> None:
    network = SimNetwork(Random(0))
    hub = network.listen("ipc://a")
    hub.send(b"nobody", [b"x"])
    run(network)


def test_endpoints_and_lines_do_not_mix() -> None:
    network = SimNetwork(Random(0))
    a, b = network.listen("ipc://a"), network.listen("ipc://b")
    lines = [network.connect(endpoint) for endpoint in ("ipc://a", "ipc://a", "ipc://b")]
    for number, line in enumerate(lines):
        line.send([b"%d" % number])
    network.turn()
    got = sorted(drain_hub(a))
    assert len({peer for peer, _ in got}) == 2
    assert sorted(numbers([frames for _, frames in got])) == [0, 1]
    assert numbers([frames for _, frames in drain_hub(b)]) == [2]
    for peer, frames in got:
        a.send(peer, frames)
    network.turn()
    assert [drain(line.receive) for line in lines] == [[[b"0"]], [[b"1"]], []]


def test_between_peers_there_is_no_order_but_each_keeps_its_own() -> None:
    orders = set()
    for seed in SEEDS:
        network = SimNetwork(Random(seed), NetworkFaults(delay=0.3))
        hub = network.listen("ipc://a")
        for line in [network.connect("ipc://a") for _ in range(3)]:
            send(line, range(5))
        run(network)
        got = drain_hub(hub)
        orders.add(tuple(peer for peer, _ in got))
        for peer in {peer for peer, _ in got}:
            assert numbers([frames for each, frames in got if each == peer]) == list(range(5))
    assert len(orders) > 10


def test_messages_may_be_dropped_doubled_and_delayed_and_stay_in_order() -> None:
    network = SimNetwork(Random(0), NetworkFaults(drop=0.2, duplicate=0.2, delay=0.2))
    hub, line = network.listen("ipc://a"), network.connect("ipc://a")
    send(line, range(500))
    network.turn()
    at_once = [frames for _, frames in drain_hub(hub)]
    run(network)
    got = numbers(at_once + [frames for _, frames in drain_hub(hub)])
    assert got == sorted(got)
    assert len(at_once) < len(got), "delayed"
    assert len(set(got)) < 500, "dropped"
    assert len(set(got)) < len(got), "doubled"


def test_chaos_alone_breaks_the_order_within_a_line() -> None:
    network = SimNetwork(Random(0), NetworkFaults(chaos=True))
    hub, line = network.listen("ipc://a"), network.connect("ipc://a")
    send(line, range(100))
    run(network)
    got = numbers([frames for _, frames in drain_hub(hub)])
    assert got != sorted(got)
    assert sorted(got) == list(range(100))


def test_a_line_that_was_reset_is_a_new_peer_and_the_old_one_gets_nothing() -> None:
    network = SimNetwork(Random(0))
    hub, line = network.listen("ipc://a"), network.connect("ipc://a")
    send(line, range(1))
    network.turn()
    network.reset(line)
    send(line, range(1, 2))
    network.turn()
    got = sorted(drain_hub(hub))
    assert numbers([frames for _, frames in got]) == [0, 1]
    (old, _), (new, _) = got
    assert old != new
    hub.send(old, [b"lost"])
    hub.send(new, [b"heard"])
    run(network)
    assert drain(line.receive) == [[b"heard"]]


def test_a_reset_loses_an_end_of_what_was_under_way_and_nothing_that_was_queued() -> None:
    lost = set()
    for seed in SEEDS:
        network = SimNetwork(Random(seed), NetworkFaults(delay=1.0))
        hub, line = network.listen("ipc://a"), network.connect("ipc://a")
        send(line, range(5))
        network.turn()
        send(line, range(5, 10))
        network.reset(line)
        run(network)
        got = drain_hub(hub)
        last = max(peer for peer, _ in got)
        first = numbers([frames for peer, frames in got if peer != last])
        assert first == list(range(len(first)))
        assert numbers([frames for peer, frames in got if peer == last]) == [5, 6, 7, 8, 9]
        lost.add(5 - len(first))
    assert lost == {0, 1, 2, 3, 4, 5}


def test_resets_happen_by_themselves_when_asked_for() -> None:
    network = SimNetwork(Random(0), NetworkFaults(reset=0.2))
    hub = network.listen("ipc://a")
    network.connect("ipc://a")
    peers = set()
    for _ in range(50):
        network.turn()
        peers |= set(hub.connections)
    assert len(peers) > 3


def test_what_a_dead_agent_had_not_read_is_lost_and_the_queue_goes_to_the_next() -> None:
    network = SimNetwork(Random(0))
    hub, line = network.listen("ipc://a"), network.connect("ipc://a")
    send(line, range(3))
    network.turn()
    hub.close()
    hub.close()
    send(line, range(3, 6))
    network.turn()
    heir = network.listen("ipc://a")
    run(network)
    assert numbers([frames for _, frames in drain_hub(heir)]) == [3, 4, 5]


def test_a_second_hub_takes_new_lines_and_leaves_the_first_the_old_ones() -> None:
    network = SimNetwork(Random(0))
    first, old = network.listen("ipc://a"), network.connect("ipc://a")
    network.turn()
    second, new = network.listen("ipc://a"), network.connect("ipc://a")
    send(old, range(1))
    send(new, range(1, 2))
    run(network)
    assert numbers([frames for _, frames in drain_hub(first)]) == [0]
    assert numbers([frames for _, frames in drain_hub(second)]) == [1]
    first.close()
    send(old, range(2, 3))
    run(network)
    assert numbers([frames for _, frames in drain_hub(second)]) == [2], "the first one's end freed nothing"


def test_a_closed_line_is_gone_and_what_it_had_queued_too() -> None:
    network = SimNetwork(Random(0))
    hub, line = network.listen("ipc://a"), network.connect("ipc://a")
    send(line, range(1))
    network.turn()
    send(line, range(1, 5))
    line.close()
    line.close()
    run(network)
    assert numbers([frames for _, frames in drain_hub(hub)]) == [0]
    assert not hub.connections


def test_what_arrives_is_the_receivers_own() -> None:
    network = SimNetwork(Random(0), NetworkFaults(duplicate=1.0))
    hub, line = network.listen("ipc://a"), network.connect("ipc://a")
    message = [b"1"]
    line.send(message)
    message.append(b"changed by the sender")
    network.turn()
    one, two = drain_hub(hub)
    one[1].append(b"changed by a receiver")
    assert two[1] == [b"1"]


def echo(seed: int) -> tuple[str, list[str]]:
    faults = NetworkFaults(drop=0.1, duplicate=0.1, delay=0.2, reset=0.05, connect_late=0.3, chaos=seed % 2 == 1)
    network = SimNetwork(Random(seed), faults)
    lines = [network.connect("ipc://a") for _ in range(4)]
    hub = network.listen("ipc://a")
    for number in range(100):
        for line in lines:
            line.send([b"%d" % number])
        network.turn()
        for peer, frames in drain_hub(hub):
            hub.send(peer, frames)
        if number % 30 == 29:
            hub.close()
            hub = network.listen("ipc://a")
    return network.trace, list(network.recent)


def test_the_same_seed_gives_the_same_trace() -> None:
    for seed in range(6):
        assert echo(seed) == echo(seed)
    assert len({echo(seed)[0] for seed in range(6)}) == 6
