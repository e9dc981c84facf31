"""A trainer that answers for a NAS-Bench-201 cell at once; or misbehaves, as the words of its command say.

    python tests/toys/trainer.py ARCHITECTURE OUTDIR [CRIME SHARE]

The crime is committed for a share of all cells. `trained.txt` beside the folder of trainings gets a line per
start.
"""
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

MEGABYTES = 1024 if os.environ.get("FULL") == "1" else 48


def answer(architecture: str) -> dict:
    return {"accuracy": 50 + 5 * architecture.count("conv_3x3") - 3 * architecture.count("none"), "test": 40}


def forked(**options) -> None:
    """Leaves a process behind that sleeps with our output open."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **options)


def commit(crime: str, architecture: str) -> None:
    if crime == "flood":
        line = b"x" * 2**20
        for _ in range(MEGABYTES):
            os.write(1, line)
            os.write(2, line[:2**14])
        sys.exit(4)
    elif crime == "flood-and-answer":
        for _ in range(MEGABYTES):
            os.write(1, b"y" * 2**20)
        print("\n" + json.dumps(answer(architecture)), flush=True)
    elif crime == "sleep":
        time.sleep(600)
    elif crime == "nan":
        print('{"accuracy": NaN}')
    elif crime == "huge":
        print('{"accuracy": 1' + "0" * 400 + "}")
    elif crime == "bool":
        print('{"accuracy": true}')
    elif crime == "percent":
        print('{"accuracy": 1234}')
    elif crime == "prose":
        print("accuracy: 93 %")
    elif crime == "silence":
        pass
    elif crime == "bytes":
        os.write(1, bytes(range(256)) + b"\n")
    elif crime == "code":
        print("the disk is full\nno, the GPU is", file=sys.stderr)
        print(json.dumps(answer(architecture)))
        sys.exit(3)
    elif crime == "kill":
        os.kill(os.getpid(), 9)
    elif crime == "fork":
        forked()
        print(json.dumps(answer(architecture)), flush=True)
    elif crime == "daemon":
        forked(start_new_session=True)
        print(json.dumps(answer(architecture)), flush=True)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    architecture, folder, *crimes = sys.argv[1:]
    with open(Path(folder).parent.parent / "trained.txt", "a") as file:
        file.write(architecture + "\n")
    if crimes:
        crime, share = crimes
        if int(hashlib.sha256(architecture.encode()).hexdigest(), 16) % 100 < 100 * float(share):
            commit(crime, architecture)
    print("epoch 1 ...")
    print(json.dumps(answer(architecture)))
