#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants one violation of each rule in a clean little tree; tidy must name its file, its line and its rule."""
import importlib.machinery
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import unittest

TIDY = pathlib.Path(__file__).resolve().parent / "tidy"
LOADER = importlib.machinery.SourceFileLoader("tidy", str(TIDY))
sys.dont_write_bytecode = True
SPEC = importlib.util.spec_from_loader("tidy", LOADER)
tidy = importlib.util.module_from_spec(SPEC)
LOADER.exec_module(tidy)

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"
CLEAN = {
    "docs/rooms.txt": "base:\nformat: base\nio: base\nsim: base io\ndisk: base format io other/open.h | sim\nother: base\ncmd: base\n",
    "docs/format/thing.md": "The page. See [the rooms](../rooms.txt).\n",
    "tests/golden/thing-v1.bin": "x",
    "src/base/a.h": SPDX + "// A thing.\n#pragma once\n",
    "src/other/open.h": SPDX + "// Open to disk.\n#pragma once\n",
    "src/other/closed.h": SPDX + "// Closed.\n#pragma once\n",
    "src/format/thing.h": SPDX + "// A format.\n#pragma once\nstatic_assert(OnDisk<Thing, 8>);\nvoid decode(int);\n",
    "src/format/thing_fuzz.cc": SPDX + '#include "format/thing.h"\n',
    "src/sim/s.h": SPDX + "// The world.\n#pragma once\n",
    "src/disk/d.cc": SPDX + '#include "base/a.h"\n#include "other/open.h"\n// std::mutex in a comment\n'
                            'const char* text = "throw sleep( rand() // ";\nint big = 1\'000\'000;\nint f() { return io.random(); }\n',
    "src/disk/d_test.cc": SPDX + '#include "sim/s.h"\n',
}
HEAD = 2  # Lines before the first planted one.


def long_function(lines: int, head: str = "int g(int x)") -> str:
    return head + " {\n" + "  for (int i = 0; i < 3; ++i) { x += i; }\n" * (lines - 2) + "}\n"


class TidyTest(unittest.TestCase):
    def setUp(self):
        self.place = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.place.name)
        for name, text in CLEAN.items():
            self.write(name, text)

    def tearDown(self):
        self.place.cleanup()

    def write(self, name: str, text: str):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def found(self):
        return [(f.path, f.line, f.rule) for f in tidy.findings_of(self.root)]

    def plant(self, name: str, code: str, *expected, head=SPDX + "// x\n"):
        self.write(name, head + code)
        self.assertEqual(self.found(), [(name, *e) for e in expected], code)
        (self.root / name).unlink()

    def test_a_clean_tree_is_clean(self):
        self.assertEqual(self.found(), [])

    def test_a_room_reaches_only_where_the_table_says(self):
        self.plant("src/disk/x.cc", '#include "other/closed.h"\n', (3, "room"))
        self.plant("src/disk/x.cc", '#include "sim/s.h"\n', (3, "room"))
        self.plant("src/disk/x.cc", '#include "../base/a.h"\n', (3, "room"))
        self.plant("src/disk/x.cc", '#include "base/no.h"\n', (3, "room"))
        self.plant("src/disk/x.cc", '#include "d.h"\n', (3, "room"))

    def test_an_unknown_room_is_named(self):
        self.plant("src/attic/x.cc", "", (1, "room"))

    def test_the_world_stays_in_io(self):
        for code in ("#include <thread>", "#include <random>", "std::mutex m;", "auto t = std::chrono::steady_clock::now();",
                     "auto t = time(nullptr);", "auto r = rand();", 'auto e = getenv("X");', "usleep(3);", "sleep(3);",
                     "auto n = ::read(3, p, 4);", "fdatasync(fd);", "auto p = mmap(0, 1);", "auto i = reinterpret_cast<int*>(p);",
                     "co_await x;", "throw 3;", "clock_gettime(0, &t);"):
            self.plant("src/disk/x.cc", code + "\n", (3, "banned"))

    def test_words_that_only_look_like_the_world(self):
        self.plant("src/disk/x.cc", "auto a = io.random();\nauto b = io->sleep(x);\nauto c = device.read(io, r);\n"
                                    "auto i = reinterpret_cast<uintptr_t>(p);\nauto d = io.now();\nauto e = thing::read(3);\nint timeout(int);\n")
        self.plant("src/io/x.cc", "#include <thread>\nauto n = ::read(3, p, 4);\nfdatasync(fd);\n")
        self.plant("src/cmd/x.cc", "#include <thread>\n")

    def test_an_unordered_container_is_not_walked(self):
        self.plant("src/disk/x.cc", "std::unordered_map<int, int> names;\nint f() {\n  for (auto& n : names) g(n);\n}\n",
                   (5, "banned"))

    def test_a_test_does_not_sleep_or_skip(self):
        self.plant("src/disk/x_test.cc", "void f() { usleep(3); }\n", (3, "banned"))
        self.plant("src/disk/x_test.cc", "void f() { GTEST_SKIP(); }\n", (3, "banned"))
        self.plant("src/disk/x_test.cc", "void f() { ::read(0, p, 1); }\n")

    def test_sizes(self):
        self.plant("src/disk/x.cc", "//" + "x" * 98 + "\n")
        self.plant("src/disk/x.cc", "//" + "x" * 99 + "\n", (3, "size"))
        self.plant("src/disk/x.cc", "int a;\n" * 798)
        self.plant("src/disk/x.cc", "int a;\n" * 799, (800, "size"))

    def test_functions_end_in_time(self):
        self.plant("src/disk/x.cc", long_function(70))
        self.plant("src/disk/x.cc", "namespace n {\n" + long_function(71) + "}\n", (4, "size"))
        self.plant("src/disk/x.cc", "class C {\n" + long_function(71, "  int g(int x) const noexcept") + "};\n", (4, "size"))
        branches = "int g() {\n#ifdef MUTANT\n  while (a) {\n#else\n  while (b) {\n#endif\n    c();\n  }\n}\n"
        self.plant("src/disk/x.cc", branches + "int x;\n" * 80)
        self.plant("src/disk/x.cc", "struct C {\n" + "  int a;\n" * 100 + "};\n")

    def test_marks_and_places(self):
        self.plant("src/disk/x.cc", "// TO" + "DO later\n", (3, "mark"))
        self.plant("docs/x.md", "see /" + "work/tree\n", (3, "place"))
        self.plant("src/disk/x.cc", "// see /" + "home/me\n", (3, "place"))

    def test_licence_and_header(self):
        self.plant("src/disk/x.cc", "int a;\n", (1, "licence"), head="")
        self.plant("tests/x.sh", "exit 0\n", (1, "licence"), head="#!/bin/sh\n")
        self.plant("src/disk/x.h", "int a;\n", (1, "header"))
        self.plant("src/disk/x.h", "#pragma once\n", (2, "header"), head=SPDX)

    def test_contracts_are_lists(self):
        self.plant("src/disk/x.h", "#pragma once\n//  D1  One. D2  Two.\n", (4, "contract"))
        self.plant("src/disk/x.h", "#pragma once\n//  D1  One.\n//  D2  Two, see D1. And W1 before W2.\n")

    def test_a_format_without_page_golden_file_or_fuzzer(self):
        for missing in ("docs/format/thing.md", "tests/golden/thing-v1.bin", "src/format/thing_fuzz.cc"):
            kept = (self.root / missing).read_text()
            (self.root / missing).unlink()
            self.assertEqual(self.found(), [("src/format/thing.h", 1, "artifact")], missing)
            self.write(missing, kept)

    def test_a_metric_without_a_line_in_the_reference(self):
        self.write("docs/reference/metrics.md", "firn_known_total\n")
        self.plant("src/disk/x.cc", 'auto a = "firn_known_total";\nauto b = "# HELP firn_lost_total x";\n', (4, "reference"))

    def test_mutants_and_their_page_agree(self):
        self.write("docs/testing.md", "## Mutants\n| `no_flush`, `known_one` | `x` |\n## More\n| `kill9` | P1 |\n")
        self.assertEqual(len(self.found()), 2)
        self.write("src/disk/z.cc", SPDX + "#ifdef FIRN_MUTANT_known_one\n#endif\n")
        self.write("src/disk/y.cc", SPDX + "#ifdef FIRN_MUTANT_no_flush\n#endif\n")
        self.assertEqual(self.found(), [])
        self.write("src/disk/z.cc", SPDX)
        self.write("src/disk/y.cc", SPDX)
        self.write("docs/testing.md", "nothing\n")
        self.plant("src/disk/x.cc", "#ifdef FIRN_MUTANT_no_flush\n#endif\n", (3, "mutant"))

    def test_a_link_that_leads_nowhere(self):
        self.plant("docs/x.md", "[here](format/thing.md) [there](format/none.md)\n", (3, "link"))

    def test_the_command_line(self):
        run = lambda *more: subprocess.run([sys.executable, str(TIDY), "--root", str(self.root), *more],
                                           capture_output=True, text=True, check=False)
        self.assertEqual(run().returncode, 0)
        self.write("src/disk/x.cc", SPDX + "usleep(1);\n")
        self.assertEqual(run().returncode, 1)
        self.assertIn("src/disk/x.cc:2: banned:", run().stdout)
        self.assertEqual(run(str(self.root / "src/disk/d.cc")).returncode, 0)


if __name__ == "__main__":
    unittest.main()
