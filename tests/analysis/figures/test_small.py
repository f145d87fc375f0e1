"""Use of the peak, energy, stragglers, batching, predictions: each a small figure or a line."""

import pytest

from hpcgeo.measured import Energy, Memory, Spread, Wait
from hpcgeo_analysis.figures import batching, energy, predictions, stragglers, utilisation
from hpcgeo_analysis.utilisation import mfu
from tests.analysis.figures.drawn import check, of_line, read, texts, tips, widths

GIB = 2**30


def test_the_best_share_of_the_peak_is_one_of_like_precision(make, study):
    """DDP in float32 uses more of its lower peak and achieves less."""

    def used(name, dtype, achieved, peak):
        share = {"mfu": achieved / peak, "peak_flops_per_s": peak, "peak_source": "tabled"}
        return make(name, 1, 1.0, dtype=dtype, model_flops=achieved, **share)

    records = [
        used("DDP", "float32", 16e12, 47.9e12),
        used("FULL_SHARD", "bfloat16", 52e12, 191.5e12),
        used("NO_SHARD", "bfloat16", 39e12, 191.5e12),
    ]
    figure = utilisation.figure(study(records))
    check(figure)
    assert figure.title == "The highest FLOP/s: FULL_SHARD of vit_tiny on 1 device"
    assert figure.sentences == (
        "Best MFU in bfloat16: 27 % of 192 TFLOP/s (tabled), FULL_SHARD of vit_tiny on 1 device.",
        "Best MFU in float32: 33 % of 47.9 TFLOP/s (tabled), DDP of vit_tiny on 1 device.",
    )
    like, other = map(read, figure.panels)
    assert {row.get("data-model") for row in of_line(like, "NO_SHARD")} == {"vit_tiny"}
    assert texts(like)[0] == "bfloat16" and texts(other)[0] == "float32"
    assert widths(like) == pytest.approx([358, 358 * 39 / 52], abs=0.2)
    assert widths(other) == pytest.approx([358 * 16 / 52], abs=0.2)


def test_a_share_above_all_of_the_peak_is_not_shown(whole, study):
    records = [whole("DDP", 1, 0.1, mfu=share, hfu=share) for share in (0.5, 0.6, 1.2)]
    figure = utilisation.figure(study(records))
    assert not figure.panels and figure.missing


def test_a_measured_peak_is_the_highest_of_its_device_and_dtype(make, study):
    """Two ranks that share cores measure half the peak: that does not double their MFU."""
    peak = {"model_flops": 30e9, "peak_source": "measured"}
    records = [
        make("DDP", 1, 1.0, mfu=0.3, peak_flops_per_s=100e9, **peak),
        make("DDP", 2, 1.0, mfu=0.3, peak_flops_per_s=50e9, **peak),
    ]
    figure = utilisation.figure(study(records))
    assert figure.sentences == (
        "Best MFU in float32: 30 % of 100 GFLOP/s (highest measured), DDP of vit_tiny on 1 device.",
    )
    assert [mfu(point) for point in study(records).points] == pytest.approx([0.3, 0.15])


def used(joules, **fields):
    return Energy(**{"source": "nvml", "covers": "1 GPU"} | fields, joules=joules, images=100)


def test_energy_by_hand(make, study):
    grid = {"grid_g_per_kwh": 500.0, "grid_source": "IEA 2023"}
    records = [make("DDP", energy=used(360.0, **grid)), make("A", energy=used(720.0))]
    figure = energy.figure(study(records))
    check(figure)
    # 3.6 J an image is 3.6 MJ = 1 kWh per million images, at 500 g/kWh half a kilogram.
    found = read(figure.panels[0])
    assert tips(of_line(found, "DDP")[0]) == ["3.60 J an image, 0.500 kg CO2"]
    assert widths(found) == pytest.approx([179, 358], abs=0.2)
    assert {"1.00", "2.00", "kWh"} <= set(texts(found))
    assert figure.title == "DDP of vit_tiny on 1 device needs least energy"
    assert figure.caption == "kWh per million images. Read by nvml, which sees 1 GPU."
    assert figure.sentences == ("CO2 is that of 500 g/kWh (IEA 2023).",)


def test_nearly_equal_energy_ties(make, study):
    spent = {"DDP": 100.0, "A": 104.0, "B": 120.0}
    records = [make(name, energy=used(joules)) for name, joules in spent.items()]
    figure = energy.figure(study(records))
    assert figure.title == "2 of 3 points tie for the least energy of vit_tiny on 1 device"


def test_energy_of_repeats_is_their_median(make, study):
    repeats = [make(energy=used(joules)) for joules in (100, 400)]
    figure = energy.figure(study(repeats))
    assert tips(read(figure.panels[0])) == ["2.50 J an image"]
    other = [repeats[0], make(energy=used(100, covers="2 GPUs"))]
    assert energy.figure(study(other)).missing


def test_counters_that_see_other_things_do_not_compete(make, study):
    records = [make("DDP", energy=used(100.0)), make("A", energy=used(50.0, covers="all"))]
    assert "least" not in energy.figure(study(records)).title


def test_no_counter_says_what_to_do(make, study):
    figure = energy.figure(study([make()]))
    check(figure)
    assert "NVML" in figure.missing


def test_a_straggler_has_rank_host_and_delay(make, study):
    wait = Wait(seconds=[0.06, 0.06, 0.01, 0.06], straggler=2, host="node7", late_s=0.05)
    records = [make(devices=4, wait=wait), make(devices=2, wait=Wait(seconds=[0.0, 0.0]))]
    figure = stragglers.figure(study(records))
    check(figure)
    assert figure.title == "Rank 2 on node7 holds up the others most"
    found = read(figure.panels[0])
    assert {"2 on node7: DDP, vit_tiny, 4 devices", "50.0 ms"} <= set(texts(found))


def test_a_straggler_of_repeats(make, study):
    def late(host, seconds):
        waits = [0.06, 0.06, 0.01, 0.06]
        return Wait(seconds=waits, straggler=2, host=host, late_s=seconds)

    waits = [late("n1", 0.01), late("n1", 0.02), late("n2", 0.01), Wait(seconds=[0.0])]
    times = (0.1, 0.2, 0.1, 0.1)
    repeats = [make(devices=4, step_s=s, wait=w) for s, w in zip(times, waits, strict=True)]
    found = read(stragglers.figure(study(repeats)).panels[0])
    assert tips(found) == ["10 % of a step, in 2 of 4 runs", "10 % of a step, in 1 of 4 runs"]
    assert [text for text in texts(found) if text.endswith(" ms")] == ["20.0 ms", "10.0 ms"]
    assert widths(found) == pytest.approx([358, 179], abs=0.2)


def test_nobody_late_is_a_line(make, study):
    assert "records their waits" in stragglers.figure(study([make()])).missing
    quiet = stragglers.figure(study([make(devices=2, wait=Wait(seconds=[0.0, 0.0]))]))
    assert (quiet.title, quiet.missing) == ("No rank holds up the others", "")
    assert quiet.sentences == ("Waits were recorded in 1 point.",)


RATES = {"padding": (9_000.0, 0.6), "bins": (19_900.0, 0.05), "packed": (20_000.0, 0.0)}


@pytest.fixture
def mixed(whole):
    """Records of three modes on 1 and 2 devices, as runs on mixtures leave them."""

    def record(mode, devices):
        rate, padding = RATES[mode]
        rates = [factor * rate * devices for factor in (0.99, 1.0, 1.01)]
        unknown = dict.fromkeys(("chip", "bands", "model_flops", "mfu", "hfu", "executed_flops"))
        unknown |= {"predicted_memory": None, "data": "mixture", "objective": "multitask"}
        tokens = {"tokens_per_s": Spread.of(rates), "padding": padding}
        config = {"data": {"tasks": {}, "batching": {"mode": mode, "max_padding": 64}}}
        return whole("DDP", devices, 2_000 / rate, **unknown | tokens, config=config)

    return [record(mode, devices) for mode in RATES for devices in (1, 2)]


def test_tokens_and_padding_of_every_mode(mixed, study):
    figure = batching.figure(study(mixed))
    check(figure)
    assert figure.title == "packed and bins tie in tokens per second, on 2 devices"
    assert figure.sentences == (
        "Up to 60 % of what is computed is padding: DDP padding of vit_tiny on 1 device.",
    )
    assert not figure.footnotes, "the mode is said by the line"
    rows = of_line(read(figure.panels[0]), "DDP padding")
    tokens, padding = widths(rows[0])
    assert padding / tokens == pytest.approx(0.6 / 0.4, rel=0.01)
    assert "18,000" in texts(rows[0])


def test_batching_is_silent_where_samples_are_alike(make, study):
    assert batching.figure(study([make()])) is None


def predicted(**fields):
    return {"kind": "predicted", "step_s": None, "versions": {}, **fields}


def test_rates_predicted_and_measured(make, study):
    records = [make(devices=2, step_s=0.1), make(devices=4, step_s=0.1)]
    for devices, rate in ((2, 176.0), (4, 320.0), (8, 1.0)):
        records.append(make(devices=devices, **predicted(images_per_s=rate)))
    figure = predictions.figure(study(records))
    check(figure)
    assert figure.title == "Predicted images/s: 1.00 to 1.10 x of measured"
    assert tips(read(figure.panels[0])) == [
        "images/s of DDP of vit_tiny on 4 devices: 1.00 x",
        "images/s of DDP of vit_tiny on 2 devices: 1.10 x",
    ]


def test_memory_is_compared_in_the_phase_that_the_closed_form_means(whole, study):
    record = whole("DDP", 1, 0.1)
    memory = record.memory.model_copy(update={"phase": "backward"})
    alike = record.model_copy(update={"memory": memory})
    figure = predictions.figure(study([alike]))
    check(figure)
    # 4.6 GiB of causes that the closed form knows, 4.5 measured; activations 0.6 of 0.5
    assert figure.title == "Predicted memory of all causes: 1.02 x of measured"
    assert figure.sentences == (
        "Furthest off: activations of DDP of vit_tiny on 1 device, 1.20 x of measured.",
    )
    for phase in ("augmentation", None):
        memory = record.memory.model_copy(update={"phase": phase})
        figure = predictions.figure(study([record.model_copy(update={"memory": memory})]))
        assert not figure.panels and figure.missing.startswith("1 prediction ")


def test_peaks_of_two_kinds_are_not_compared(make, study):
    def peak(source):
        return {"peak_memory_bytes": GIB, "memory_source": source}

    measured = make(**peak("reserved"))
    for source, found in (("reserved", 1), ("active", 0)):
        closed = make(**predicted(images_per_s=80.0), **peak(source))
        drawn = tips(read(predictions.figure(study([measured, closed])).panels[0]))
        assert sum(tip.startswith("peak memory") for tip in drawn) == found


def test_of_many_points_the_extremes_have_a_mark(make, study):
    records = [make(devices=n, step_s=0.1) for n in range(1, 21)]
    rates = [{"images_per_s": 80.0 * n * (1 + n / 100)} for n in range(1, 21)]
    records += [make(devices=n, **predicted(**rate)) for n, rate in enumerate(rates, 1)]
    drawn = tips(read(predictions.figure(study(records)).panels[0]))
    assert [tip.split(": ")[1] for tip in drawn] == ["1.01 x", "1.11 x", "1.20 x"]


def test_a_cause_that_was_not_measured_has_no_ratio(whole, study):
    memory = Memory(parameters_bytes=GIB, peak_resident_bytes=2 * GIB, phase="forward")
    record = whole("DDP", 1, 0.1, memory=memory)
    drawn = tips(read(predictions.figure(study([record])).panels[0]))
    assert drawn == ["parameters of DDP of vit_tiny on 1 device: 1.00 x"]
