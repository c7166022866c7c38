"""From rows to ratios: a ratio is taken within each round and its median given, as the machine's mood changes between rounds.

`wrong` is what makes the bench fail: a run that was stopped, an operation that did not succeed. A target that is not met is
printed as such and is no failure: a figure depends on the machine, correctness does not."""
import os
import statistics


def _figure(row, path):
    for key in path.split("."):
        row = row.get(key) if isinstance(row, dict) else None
    return row


class Rows:
    """Figures by peer, test and round."""

    def __init__(self, rows):
        self.rows = rows

    def by_round(self, peer, test, path):
        return {r["round"]: v for r in self.rows if r["peer"] == peer and r["test"] == test and (v := _figure(r, path)) is not None}

    def median(self, peer, test, path):
        values = list(self.by_round(peer, test, path).values())
        return statistics.median(values) if values else None

    def ratio(self, ours, theirs, test, path, their_test=None):
        """One ratio for each round that has both."""
        a, b = self.by_round(ours, test, path), self.by_round(theirs, their_test or test, path)
        return [a[i] / b[i] for i in a if b.get(i)]

    def each(self, peer, test, path):
        return list(self.by_round(peer, test, path).values())


def _targets(r, options):
    """(what, figure or one for each round, target, at least | at most); what was not measured is None or empty."""
    for a in options["associations"]:
        if a > 1:
            yield f"ingest, {a} associations: MB/s over Orthanc's", r.ratio("triptych", "orthanc", f"ingest_a{a}", "mb_s"), 2.5, "least"
            yield f"ingest, {a} associations: MB/s over storescp's", r.ratio("triptych", "storescp", f"ingest_a{a}", "mb_s"), 0.35, "least"
            yield f"ingest, {a} associations: server CPU s/GB", r.median("triptych", f"ingest_a{a}", "server_cpu_s_per_gb"), 3, "most"
            yield f"three nodes, {a} associations: MB/s over Orthanc's one", r.ratio("triptych-3", "orthanc", f"ingest_a{a}", "mb_s"), 1, "least"
    raw, one = r.median("machine", "raw_disk", "sync_each.p50_ms"), r.median("triptych", "ingest_a1", "latency_ms.p50")
    over = one / (2 * raw + 1) if one and raw else None
    yield "one association: p50 of a C-STORE over (2 x raw write + fdatasync + 1 ms)", over, 1, "most"
    sizes = sorted({int(t.split("_")[2]) for t in {x["test"] for x in r.rows} if t.startswith("cfind_")})
    for name, clients in (("cfind_uid", "a"), ("cfind_patient", "a"), ("cfind_accession", "a"), ("qido_patient", "c")):
        for size in sizes[-1:]:
            test = f"{name}_{size}_{clients}1"
            yield f"{name}, {size} studies, one client: p50 ms", r.median("triptych", test, "latency_ms.p50"), 2, "most"
            yield f"{name}, {size} studies, one client: rate over Orthanc's", r.ratio("triptych", "orthanc", test, "req_s"), 10, "least"
            test = f"{name}_{size}_{clients}8"
            yield f"{name}, {size} studies, 8 clients: rate over Orthanc's", r.ratio("triptych", "orthanc", test, "req_s"), 10, "least"
        if len(sizes) > 1:
            small, large = (r.median("triptych", f"{name}_{s}_{clients}1", "latency_ms.p50") for s in (sizes[0], sizes[-1]))
            yield f"{name}: p50 at {sizes[-1]} studies over that at {sizes[0]}", large / small if small and large else None, 1.3, "most"
    for n in (1, 4):
        yield f"C-GET, {n} associations: MB/s over dcmqrscp's", r.ratio("triptych", "dcmqrscp", f"cget_a{n}", "mb_s"), 1, "least"
        yield f"C-GET, {n} associations: MB/s over Orthanc's", r.ratio("triptych", "orthanc", f"cget_a{n}", "mb_s"), 2, "least"
        yield f"C-GET, {n} associations: CPU s/GB over dcmqrscp's", r.ratio("triptych", "dcmqrscp", f"cget_a{n}", "server_cpu_s_per_gb"), 1, "most"
        yield f"WADO-RS series, {n} clients: MB/s over Orthanc's", r.ratio("triptych", "orthanc", f"wado_series_c{n}", "mb_s"), 2, "least"
        yield f"WADO-RS series, {n} clients: CPU s/GB over Orthanc's", r.ratio("triptych", "orthanc", f"wado_series_c{n}", "server_cpu_s_per_gb"), 1, "most"
        yield f"C-MOVE, {n} associations: MB/s over dcmqrscp's", r.ratio("triptych", "dcmqrscp", f"cmove_a{n}", "mb_s"), 1, "least"
        yield f"C-MOVE, {n} associations: CPU s/GB over dcmqrscp's", r.ratio("triptych", "dcmqrscp", f"cmove_a{n}", "server_cpu_s_per_gb"), 1, "most"
    yield "rendered CT, one client: p50 ms", r.median("triptych", "rendered_c1", "latency_ms.p50"), 5, "most"
    yield "rendered CT, one client: rate over Orthanc's", r.ratio("triptych", "orthanc", "rendered_c1", "req_s"), 1, "least"
    yield "rendered frame of many: p50 of the last ten over that of the first ten", r.ratio("triptych", "triptych", "frame_last", "latency_ms.p50", "frame_first"), 1.3, "most"
    yield "small instances: rate over Orthanc's", r.ratio("triptych", "orthanc", "small", "inst_s"), 10, "least"
    yield "small instances: rate of the first tenth over that of the last", r.each("triptych", "small", "first_over_last"), 1.2, "most"
    yield "small instances: server CPU for one, last tenth over first", r.each("triptych", "small", "cpu_last_over_first"), 1.2, "most"
    yield "small instances: the same sender's rate into nothing over that into Triptych", r.ratio("sink", "triptych", "small", "inst_s"), 2, "least"
    yield "C-FIND by PatientID over them: server CPU ms a query", r.each("triptych", "pid", "server_cpu_ms_per_request"), 1, "most"
    for peer in ("triptych", "triptych-3"):
        yield f"{peer}: {options['big_associations']} x {options['big_mib']} MiB objects at once: peak resident MiB of a node", r.median(peer, "big", "server_peak_rss_mib"), 300, "most"
        idle = [x for x in r.rows if x["peer"] == peer and x["test"] == "idle"]
        yield f"{peer}: idle cores of the busiest node", max((max(x["cores_per_node"]) for x in idle), default=None), 0.1, "most"
        yield f"{peer}: idle resident MiB of the largest node", max((max(x["rss_mib_per_node"]) for x in idle), default=None), 150, "most"
    yield "mirror of a replaced node: rate over a raw copy on this disk", r.median("triptych-3", "mirror", "of_raw"), 0.7, "least"
    yield "mirror: p99 of a C-STORE beside it over that of the two nodes left without it", r.median("triptych-3", "mirror", "p99_over_two_left"), 2, "most"
    yield "mirror: the same over that of three whole nodes", r.median("triptych-3", "mirror", "p99_over_three_nodes"), 2, "most"
    yield "a node away for minutes: catch-up over a raw copy on this disk", r.median("triptych-3", "lag", "of_raw"), 0.5, "least"
    for peer in ("triptych", "triptych-3"):
        yield f"{peer}: kill -9 with many instances: s until ready", r.median(peer, "restart", "longest_ready_s"), 5, "most"
    yield "kill -9 under load: longest standstill of writes, s", r.median("triptych-3", "failover", "standstill_s.max"), 5, "most"


def _busy(rows):
    """Share of the machine that others used while a server was measured: above a tenth, wall-clock figures say little."""
    shares = [x["foreign_cpu_s"] / (x["wall_s"] * os.cpu_count()) for x in rows if x.get("wall_s")]
    return round(statistics.median(shares), 3) if shares else None


def conclude(rows, absent, stopped, options):
    """All rows, the targets with their figures, and what went wrong."""
    targets = []
    for what, figures, target, sense in _targets(Rows(rows), options):
        figures = figures if isinstance(figures, list) else [] if figures is None else [figures]
        figure = statistics.median(figures) if figures else None
        met = None if figure is None else (figure >= target if sense == "least" else figure <= target)
        targets.append(dict(what=what, figure=None if figure is None else round(figure, 3), target=target, at=sense, met=met,
                            rounds=[round(f, 3) for f in figures]))
    wrong = list(stopped)
    for row in rows:
        if row.get("error") or row.get("failures"):
            wrong.append(f"{row['peer']} {row['test']} #{row['round']}: {row.get('error') or row['failures']}")
    cpu = ""
    with open("/proc/cpuinfo") as f:
        cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "")
    return dict(machine=dict(cores=os.cpu_count(), cpu=cpu, kernel=os.uname().release, load1_at_end=os.getloadavg()[0],
                             share_used_by_others=_busy(rows)),
                options=options, absent=absent, wrong=wrong, targets=targets, rows=rows,
                notes=[f"{row['peer']} {row['test']} #{row['round']}: {row['note']}" for row in rows if row.get("note")])


def show(result):
    """The table for people."""
    print("\nTargets (ratios within a round, medians over rounds)")
    width = max(len(t["what"]) for t in result["targets"])
    for t in result["targets"]:
        if t["figure"] is None:
            figure, verdict = "-", "not measured"
        else:
            figure, verdict = f"{t['figure']:.2f}", "met" if t["met"] else "NOT MET"
        if len(t["rounds"]) > 1:
            verdict += f" ({min(t['rounds']):.2f} to {max(t['rounds']):.2f} in {len(t['rounds'])} rounds)"
        print(f"  {t['what']:{width}}  {figure:>8}  {'>=' if t['at'] == 'least' else '<='} {t['target']:<5} {verdict}")
    for note in result["notes"]:
        print(f"   note: {note}")
    busy = result["machine"]["share_used_by_others"]
    if busy and busy > 0.1:
        print(f"!! BUSY: other programs used {busy:.0%} of the machine (median of the runs): trust CPU s/GB and p50 before MB/s, and run it again")
    for name, why in result["absent"].items():
        print(f"!! LEFT OUT: {name}: {why}; no ratio with it")
    for what in result["wrong"]:
        print(f"!! WRONG: {what}")
