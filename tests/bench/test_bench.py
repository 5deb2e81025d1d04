"""The bench's own arithmetic: what it reads from the kernel, what it computes and what it writes."""

import os
import sys

import image
import measure
import mutate
import profiling
import pytest
import stats
import table
import works

LINE = "4242 (a (b) c) S 17 4242 4242 0 -1 4194560 100 200 0 0 300 50 20 5 20 0 1 0 12345 1 1"


def test_a_process_name_with_brackets_and_spaces_does_not_move_the_fields():
    process = measure.parse_stat(LINE)
    assert (process.pid, process.parent) == (4242, 17)
    assert process.seconds == pytest.approx(375 * measure.TICK)


def test_busy_time_is_that_of_programs_and_what_was_stolen_but_not_idle_waiting_or_interrupts():
    assert measure.parse_busy("cpu  1 20 300 4000 50000 600000 7000000 80000000 0 0") == pytest.approx(
        80000321 * measure.TICK)
    with pytest.raises(ValueError):
        measure.parse_busy("cpu0 1 2 3 4 5 6 7 8 0 0")


def test_a_tree_is_its_roots_and_all_below_and_survives_a_root_that_is_gone():
    found = {pid: measure.Process(pid, parent, 1.0) for pid, parent in [(1, 0), (10, 1), (11, 10), (12, 11), (20, 1)]}
    assert set(measure.tree(found, [10, 99])) == {10, 11, 12}
    assert set(measure.tree(found, [10, 11])) == {10, 11, 12}


def test_others_are_what_neither_the_run_nor_its_servers_nor_harness_nor_kernel_used():
    before = measure.Account(at=100, machine=50, harness=1, kernel=2, servers=3)
    after = measure.Account(at=110, machine=66, harness=1.5, kernel=2.5, servers=6)
    assert measure.others(before, after, own_cpu=10) == pytest.approx(0.2)
    assert measure.others(before, after, own_cpu=20) == 0


def test_a_wall_beside_more_than_a_tenth_of_a_core_is_rejected():
    assert not measure.Cost(1, 1, 0, 1, others=0.1).rejected
    assert measure.Cost(1, 1, 0, 1, others=0.11).rejected


def test_a_program_is_measured_with_its_children_and_its_output_kept(tmp_path):
    burn = "import os,time\nif os.fork():\n os.wait(); print('done')\nelse:\n" \
        " x=bytearray(64<<20)\n while time.process_time()<0.2: pass\n os._exit(0)"
    cost, said = measure.run([sys.executable, "-c", burn], tmp_path / "log")
    assert said == "done\n"
    assert 0.2 <= cost.cpu <= 5 and cost.wall >= 0.2
    assert 64 << 20 <= cost.rss < 256 << 20


def test_a_small_program_does_not_inherit_the_peak_of_a_large_bench(tmp_path):
    _ballast = bytearray(os.urandom(64 << 20))
    cost, _ = measure.run(["true"], tmp_path / "log")
    assert cost.rss < 16 << 20


def test_a_program_that_hangs_is_stopped_and_said_so(tmp_path):
    with pytest.raises(measure.Failed, match="was stopped after"):
        measure.run(["sleep", "60"], tmp_path / "log", limit=0.2)


def test_a_failing_program_is_a_failure_with_its_last_words(tmp_path):
    with pytest.raises(measure.Failed, match="exited with 3.*no such thing"):
        measure.run(["sh", "-c", "echo no such thing >&2; exit 3"], tmp_path / "log")


def test_numbers_keep_the_digits_that_matter():
    assert [stats.number(v) for v in (0, 0.0002, 0.0234, 0.123, 2.345, 23.45, 234.5)] == [
        "0.00", "< 0.001", "0.023", "0.12", "2.35", "23.4", "234"]


def test_a_spread_is_the_median_between_its_ends():
    assert stats.spread([3, 1, 2]) == "2.00 [1.00–3.00]"
    assert stats.spread([3, None]) == "3.00"
    assert stats.spread([None]) == stats.NOTHING


def test_ratios_are_per_round_and_need_both_sides():
    assert stats.ratios([10, None, 9], [2, 3, None]) == [5, None, None]
    assert stats.per_round([5.0, None, 3.0]) == "4.00 (5.00 – 3.00)"


def test_everybody_is_first_in_some_round():
    orders = [stats.rotated(["a", "b", "c"], by) for by in range(3)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
    assert stats.rotated([], 1) == []


def test_a_block_is_replaced_between_its_markers_and_others_stay():
    text = "# Title\n\n<!-- bench:a/x -->\nold\n<!-- /bench:a/x -->\n\nprose\n"
    text = table.replace(text, "b/y", "second")
    text = table.replace(text, "a/x", "new")
    assert text == (
        "# Title\n\n<!-- bench:a/x -->\nnew\n<!-- /bench:a/x -->\n\nprose\n\n"
        "<!-- bench:b/y -->\nsecond\n<!-- /bench:b/y -->\n")
    with pytest.raises(ValueError):
        table.replace("<!-- bench:a/x -->", "a/x", "new")


def record(tool, index, wall, rejected=False, **more):
    return {
        "set": "linux", "phase": "first", "tool": tool, "round": index, "wall": wall, "cpu": 2 * wall,
        "servers_cpu": 1.0, "rss": 100e6, "others": 0.5 if rejected else 0.0, "rejected": rejected, "stored": 200e6,
        "command": f"{tool} backup", **more,
    }


def test_a_block_has_medians_ratios_goals_and_names_what_it_rejected():
    records = [
        record("everhold", 0, 2.0), record("everhold", 1, 4.0), record("restic", 0, 10.0),
        record("restic", 1, 99.0, rejected=True), {"set": "linux", "phase": "first", "tool": "rustic", "round": 0, "failed": "no luck"},
    ]
    text = table.block(("first", "linux"), records, 2, "today", "made of stone")
    assert "| Everhold | 3.00 [2.00–4.00] | 6.00 [4.00–8.00] | 7.00 [5.00–9.00] | 100 [100–100] | 200 [200–200] |" in text
    assert "| restic, folder | 10.0 |" in text
    assert "| restic, folder | 5.00 (5.00 –) |" in text
    assert "| wall, restic ÷ Everhold | ≥ 2.5 | ≥ 3.5 | 5.00 folder | stretch |" in text
    assert "| stored, Everhold ÷ restic | ≤ 0.87 | ≤ 0.83 | 1.00 folder | missed |" in text
    assert "* restic, folder: round 2 99.0 s beside 0.50 cores" in text
    assert "Failed: rustic, folder: `no luck`." in text
    assert "today" in text and "made of stone" in text and "restic backup" in text


def test_where_every_wall_was_rejected_no_ratio_is_claimed():
    records = [record("everhold", 0, 2.0, rejected=True), record("restic", 0, 10.0)]
    text = table.block(("first", "linux"), records, 1, "", "")
    assert "| Everhold | rejected (2.00) |" in text
    assert "| wall, restic ÷ Everhold | ≥ 2.5 | ≥ 3.5 | – | not measured |" in text


def test_the_overview_repeats_the_goals_of_all_blocks_with_their_commits():
    records = [record("everhold", 0, 2.0), record("restic", 0, 8.0)]
    block = table.block(("first", "linux"), records, 1, "2026-01-02 03:04 UTC, commit abc123; a machine.", "")
    text = table.replace("# Title\n\n<!-- bench:goals -->\nstale\n<!-- /bench:goals -->\n", "first/linux", block)
    text = table.replace(text, "goals", table.overview(text))
    overview = text.split("<!-- /bench:goals -->")[0]
    assert "| first/linux | wall, restic ÷ Everhold | ≥ 2.5 | ≥ 3.5 | 4.00 folder | stretch | 2026-01-02, abc123 |" in overview
    assert "stale" not in overview and overview.count("| first/linux |") == 3
    assert table.replace(text, "goals", table.overview(text)) == text


def test_works_choose_their_data_unless_it_is_named():
    assert works.cells(["unchanged"], []) == [("unchanged", "linux"), ("unchanged", "tiny")]
    assert works.cells(["first", "image"], ["packages"]) == [("first", "packages")]
    assert works.cells(["image"], ["smoke"]) == [("first", "smoke-image"), ("changed", "smoke-image")]
    for cell in works.cells([], []) + works.cells([], ["smoke"]):
        assert cell[0] in works.WORKS[works.work_of(cell)][0]
    assert works.phases_to_run({"memory"}) == ["first"]
    assert works.phases_to_run({"changed", "restore"}) == ["first", "restore", "changed"]


def test_every_goal_belongs_to_a_cell_that_is_measured_by_default():
    assert {goal.cell for goal in works.GOALS} <= set(works.cells([], []))


def test_what_a_mutation_changed_is_taken_back_whole(tmp_path):
    def state():
        return {path: (open(path, "rb").read(), os.stat(path).st_mtime_ns, os.stat(path).st_ino)
                for path in mutate.regular_files([root])}

    root = tmp_path / "tree"
    for index in range(40):
        path = root / str(index % 4) / f"file {index}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([index]) * index * 10)
        os.utime(path, ns=(1, 1))
    before = state()
    mutate.apply([root], 0.5, 1, tmp_path / "journal")
    changed = state()
    assert sum(before[path] != changed[path] for path in before) == 20
    mutate.undo(tmp_path / "journal")
    assert state() == before
    assert not (tmp_path / "journal").exists()


def test_blocks_are_read_in_order_and_a_missing_one_is_none():
    said = 'debugfs: bmap "/a" 0\n2076\ndebugfs: bmap "/b" 1\ndebugfs: bmap "/c" 2\n17\n\n'
    assert image.parse_blocks(said) == [2076, 0, 17]


PERF = """
    41.20%|everhold-agent|[.] ZSTD_compressBlock_doubleFast_dictMatchState
    10.00%|everhold-agent|[.] ZSTD_decompressSequences_bmi2
     5.00%|everhold-agent|[.] HUF_decompress4X1_usingDTable_internal_fast
     2.00%|everhold-agent|[.] FSE_buildCTable_wksp
     9.00%|[kernel.kallsyms]|[k] rep_movs_alternative
     8.00%|everhold-agent|[.] aws_lc_0_47_0_sha256_block_data_order_hw
     7.00%|everhold-agent|[.] _blake3_hash_many_avx512
     6.00%|libc.so.6|[.] __memmove_avx512_unaligned_erms
     5.00%|everhold-agent|[.] _rjem_je_arena_dalloc_small
     4.00%|everhold-agent|[.] fastcdc::v2020::cut_gear
     2.80%|everhold-agent|[.] <vault::tree::Entry>::encode
# a line that is none
"""


def test_a_profile_is_told_by_kinds_of_work():
    found = profiling.shares(PERF)
    assert {kind: round(share, 3) for kind, share in found.items()} == {
        "zstd, compressing": 0.432, "zstd, decoding": 0.15, "kernel": 0.09, "SHA-256": 0.08, "BLAKE3": 0.07,
        "copies": 0.06, "allocator": 0.05, "FastCDC": 0.04, "our own": 0.028}


def test_what_is_needed_at_least_is_shared_by_the_cores(monkeypatch):
    monkeypatch.setattr(profiling.os, "cpu_count", lambda: 2)
    cost = measure.Cost(wall=5.0, cpu=8.0, servers_cpu=1.0, rss=0, others=0)
    least = {"cat": 1.0, "zstd -3 -B128K": 3.0}
    text = profiling.written({"linux": [("first", cost, {"kernel": 0.5, "our own": 0.5}, least)]}, "zstd")
    assert "| first/linux | 2.00 | cat 1.00, zstd -3 -B128K 3.00 | 5.00 | 2.50 |" in text
    assert "| first/linux | 5.00 | 8.00 | 1.00 | 90 % | 50 % |" in text
