"""Moves money between accounts of an SQLite database, one transaction a line of its output.

usage: bank.py make MODE DATABASE         100 accounts of 1000, in this journal mode
       bank.py work DATABASE WORKER SECONDS
       bank.py check DATABASE             integrity and sum; prints the worker and number of each transfer
"""

import random
import sqlite3
import sys
import time

ACCOUNTS = 100
TOTAL = 1000 * ACCOUNTS


def connect(path):
    return sqlite3.connect(path, timeout=60, isolation_level=None)


def make(mode, path):
    database = connect(path)
    (is_now,) = database.execute(f"pragma journal_mode={mode}").fetchone()
    assert is_now == mode, is_now
    database.execute("create table account(id integer primary key, sum int)")
    database.execute("create table transfer(worker int, number int, note text, primary key(worker, number))")
    database.executemany("insert into account values(?, 1000)", [(i,) for i in range(ACCOUNTS)])
    database.close()


def work(path, worker, seconds):
    database = connect(path)
    chance = random.Random(worker)
    ends = time.monotonic() + seconds
    number = 0
    while time.monotonic() < ends:
        number += 1
        source, target = chance.sample(range(ACCOUNTS), 2)
        database.execute("begin immediate")
        database.execute("update account set sum = sum - 1 where id = ?", (source,))
        database.execute("update account set sum = sum + 1 where id = ?", (target,))
        note = "x" * chance.randint(1, 3000)
        database.execute("insert into transfer values(?, ?, ?)", (worker, number, note))
        database.execute("commit")
        print(worker, number, flush=True)
        (total,) = database.execute("select sum(sum) from account").fetchone()
        assert total == TOTAL, total
    database.close()


def check(path):
    database = connect(path)
    (verdict,) = database.execute("pragma integrity_check").fetchone()
    assert verdict == "ok", verdict
    (total,) = database.execute("select sum(sum) from account").fetchone()
    assert total == TOTAL, total
    for worker, number in database.execute("select worker, number from transfer"):
        print(worker, number)


command, *rest = sys.argv[1:]
if command == "make":
    make(*rest)
elif command == "work":
    work(rest[0], int(rest[1]), float(rest[2]))
else:
    check(*rest)
