"""What a run cost: CPU seconds, memory and bytes written of a server's whole process tree, the driver's and everybody else's
share of the machine; and the machine's own limits, taken in the same run."""
import http.client
import os
import statistics
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return int(fields[1]), sum(map(int, fields[11:15]))
    except (OSError, IndexError):
        return None


def tree(roots):
    """The roots and all that descend from them."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(name)):
            children.setdefault(stat[0], []).append(int(name))
    found, todo = [], list(roots)
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_seconds(roots):
    """User and system, with the children that were waited for."""
    return sum(stat[1] for pid in tree(roots) if (stat := _stat(pid))) / TICKS


def _status_mib(pid, key):
    try:
        with open(f"/proc/{pid}/status") as f:
            return next((int(line.split()[1]) for line in f if line.startswith(key)), 0) / 1024
    except OSError:
        return 0


def rss_mib(pid):
    """Resident memory now: all, and the part that belongs to no file."""
    return _status_mib(pid, "VmRSS:"), _status_mib(pid, "RssAnon:")


def peak_rss_mib(roots):
    """The largest resident memory that any one process of the trees ever had (VmHWM)."""
    return max((_status_mib(pid, "VmHWM:") for pid in tree(roots)), default=0)


def _busy():
    with open("/proc/stat") as f:
        fields = list(map(int, f.readline().split()[1:9]))
    return (sum(fields) - fields[3] - fields[4] - fields[7]) / TICKS


class Meter:
    """`with Meter(roots) as m:` … `m.r` holds the figures of the block."""

    def __init__(self, roots):
        self.roots, self.r = roots, {}

    def __enter__(self):
        self.r["load1"] = os.getloadavg()[0]
        self.cpu, self.busy = cpu_seconds(self.roots), _busy()
        self.own = sum(os.times()[:4])
        self.at = time.monotonic()
        return self

    def __exit__(self, *_):
        wall = time.monotonic() - self.at
        server = cpu_seconds(self.roots) - self.cpu
        driver = sum(os.times()[:4]) - self.own
        self.r.update(
            wall_s=round(wall, 3), server_cpu_s=round(server, 2), driver_cpu_s=round(driver, 2),
            foreign_cpu_s=round(max(0, _busy() - self.busy - server - driver), 2),
            server_peak_rss_mib=round(peak_rss_mib(self.roots), 1))


def disk(folder, count=200, size=512 << 10):
    """The disk's own limit: append 512 KiB and fdatasync, then the same with 16 writes a sync."""
    block, path = os.urandom(size), os.path.join(folder, "raw.dat")
    out = {}
    for name, every in (("sync_each", 1), ("sync_per_16", 16)):
        took = []
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        begun = time.monotonic()
        for i in range(count):
            at = time.monotonic()
            os.write(fd, block)
            if (i + 1) % every == 0:
                os.fdatasync(fd)
            took.append((time.monotonic() - at) * 1e3)
        os.fdatasync(fd)
        out[name] = dict(mb_s=round(count * size / 1e6 / (time.monotonic() - begun), 1), p50_ms=round(statistics.median(took), 3))
        os.close(fd)
        os.unlink(path)
    return out


def copy(folder, mib=1024):
    """MB/s of one reader and one writer on this disk, past the page cache: a file is written, forgotten, read and written again."""
    block = os.urandom(8 << 20)
    source, target = os.path.join(folder, "raw-from.dat"), os.path.join(folder, "raw-to.dat")

    def write(path, pieces):
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        for number, piece in enumerate(pieces):
            os.write(fd, piece)
            if number % 8 == 7:
                os.fdatasync(fd)
        os.fdatasync(fd)
        os.close(fd)

    write(source, (block for _ in range(mib // 8)))
    fd = os.open(source, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    begun = time.monotonic()
    write(target, iter(lambda: os.read(fd, 8 << 20), b""))
    took = time.monotonic() - begun
    os.close(fd)
    for path in (source, target):
        os.unlink(path)
    return round(mib * (1 << 20) / 1e6 / took, 1)


def http_load(port, paths, accept, clients, seconds=None):
    """GETs `paths` over `clients` kept-alive connections: each path once, or round and round for `seconds`."""
    lock, took, total, errors = threading.Lock(), [], [0], {}
    position = iter(range(10**9))
    until = time.monotonic() + seconds if seconds else None

    def client():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        buffer = bytearray(1 << 20)
        mine, bytes_read = [], 0
        while True:
            with lock:
                i = next(position)
            if (until and time.monotonic() > until) or (not until and i >= len(paths)):
                break
            at = time.monotonic()
            try:
                connection.request("GET", paths[i % len(paths)], headers={"Accept": accept})
                response = connection.getresponse()
                while n := response.readinto(buffer):
                    bytes_read += n
                if response.status not in (200, 206):
                    raise OSError(f"status {response.status}")
                mine.append((time.monotonic() - at) * 1e3)
            except (OSError, http.client.HTTPException) as e:
                with lock:
                    errors[str(e)[:80]] = errors.get(str(e)[:80], 0) + 1
                connection.close()
        connection.close()
        with lock:
            took.extend(mine)
            total[0] += bytes_read

    begun = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.monotonic() - begun
    took.sort()
    out = dict(requests=len(took), req_s=round(len(took) / wall, 2), mb=total[0] / 1e6, mb_s=round(total[0] / 1e6 / wall, 2), failures=errors)
    if took:
        out["latency_ms"] = dict(p50=took[len(took) // 2], p99=took[int((len(took) - 1) * 0.99)], max=took[-1])
    return out
