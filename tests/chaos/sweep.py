"""Looks at every node after the run: what it holds, byte for byte, and what it lists."""
import threading
import time
from collections import Counter

import content
import requests
from clients import Dimse, Web

PAGE = 1000
# A node that is well answers; what fails more often than this is reported and left alone.
TRIES = 4


class Sweep:
    def __init__(self, nodes, violate):
        self.nodes, self.violate = nodes, violate
        self.http = {name: node["http"] for name, node in nodes.items()}
        self.dimse = {name: tuple(node["dimse"]) for name, node in nodes.items() if node.get("dimse")}
        self.compared = 0

    def each_node(self, look):
        """`look(name)` for every node at the same time; its answers by name."""
        answers, errors = {}, []

        def run(name):
            try:
                answers[name] = look(name)
            except Exception as error:
                errors.append(f"{name}: {type(error).__name__}: {error}")

        threads = [threading.Thread(target=run, args=(name,)) for name in self.nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in errors:
            self.violate("I12", f"the sweep could not look at {error}")
        return answers

    def holdings(self, studies, instances_of):
        """{node: {instance: whether its bytes are right}} by WADO-RS, all of each study."""

        def look(name):
            web, held = Web(self.http), {}
            for study in studies:
                for last in range(TRIES):
                    outcome, came = web.study(name, study)
                    if outcome == "ok":
                        break
                    if last == 0:
                        self.violate("I12", f"{name} does not serve study {study} after the last heal: {came}")
                    time.sleep(0.5)
                if outcome != "ok":
                    came = {}
                missing = set(instances_of[study]) - set(came)
                if missing and outcome == "ok":
                    # One by one as well: a study must not hide what the instance's own address shows.
                    for instance in sorted(missing):
                        alone, one = web.instance(name, study, instance)
                        if alone == "ok" and one:
                            self.violate("I1", f"{name} serves {instance} alone, but not within its study {study}")
                            came.update(one)
                held.update(came)
                self.compared += len(came)
            return held

        return self.each_node(look)

    def qido(self):
        """{node: set of listed instances}; one that is listed twice is a violation of I9."""

        def look(name):
            session, listed, offset = requests.Session(), [], 0
            while True:
                url = f"{self.http[name]}/dicom-web/instances?limit={PAGE}&offset={offset}"
                answer = session.get(url, timeout=60)
                if answer.status_code == 204:
                    break
                answer.raise_for_status()
                page = answer.json()
                if not page:
                    break
                listed += [match["00080018"]["Value"][0] for match in page]
                offset += len(page)
            for instance, times in Counter(listed).items():
                if times > 1:
                    self.violate("I9", f"{name} lists {instance} {times} times")
            return set(listed)

        return self.each_node(look)

    def cfind(self, studies):
        """({node: set of listed studies}, {study: instances that one node lists}); each study is asked of another node."""
        names = sorted(self.dimse)
        lists, images = {}, {}
        dimse = Dimse(self.dimse)
        for name in names:
            outcome, found = dimse.find(name, "", level="STUDY")
            if outcome != "ok":
                self.violate("I12", f"{name} does not answer C-FIND after the last heal: {found}")
            else:
                lists[name] = set(found)
        for number, study in enumerate(studies):
            name = names[number % len(names)]
            outcome, found = dimse.find(name, study)
            if outcome != "ok":
                self.violate("I12", f"{name} does not answer C-FIND of {study} after the last heal: {found}")
            else:
                images[study] = (name, found)
        dimse.close()
        return lists, images

    def cget(self, studies, count):
        """{(node, study): {instance: right}} of `count` studies a node, spread over all of them."""
        got, dimse = {}, Dimse(self.dimse)
        step = max(1, len(studies) // max(1, count))
        for place, name in enumerate(sorted(self.dimse)):
            for number in range(min(count, len(studies))):
                study = studies[(place + number * step) % len(studies)]
                outcome, came = dimse.get(name, study)
                if outcome != "ok":
                    self.violate("I12", f"{name} does not answer C-GET of {study} after the last heal: {came}")
                else:
                    got[name, study] = came
                    self.compared += len(came)
        dimse.close()
        return got

    def counters(self):
        """Invariants that the nodes count themselves, and versions: other contents under a UID, which nobody has sent."""

        def look(name):
            text = requests.get(self.http[name] + "/metrics", timeout=10).text
            counted = {}
            for line in text.splitlines():
                if "invariant_violations" in line and not line.startswith("#"):
                    metric, value = line.rsplit(" ", 1)
                    counted[metric] = float(value)
                    if float(value) != 0:
                        self.violate("METRIC", f"{name}: {metric} is {value}")
            totals = requests.get(self.http[name] + "/api/totals", timeout=30)
            if totals.status_code == 200:
                counted["versions"] = totals.json().get("versions", 0)
                if counted["versions"] != 0:
                    self.violate("I9", f"{name} counts {counted['versions']} other contents of known UIDs; nobody sent any")
            return counted

        return self.each_node(look)
