"""Start the bench from this folder, with no network: python start.py [--check]

The first start makes a virtual environment and installs the wheels beside this file (some minutes); the next ones open
JupyterLab at once. --check opens nothing: it compares the files with SHA256SUMS, runs the first notebook and ends.
"""

# ruff: noqa: UP032
# Written so that any Python reads it: an old one must be able to say that it is too old.
import hashlib
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WINDOWS = os.name == "nt"
MINOR, MICRO, EXTRAS = "@MINOR@", int("@MICRO@"), "@EXTRAS@"
LONGEST = 60  # of this folder's path on Windows, whose paths end at 260 characters; within the environment they take 193


def wrong_python():
    found = ".".join(str(part) for part in sys.version_info[:3])
    narrow = sys.maxsize < 1 << 32
    if found.rsplit(".", 1)[0] == MINOR and sys.version_info[2] >= MICRO and not narrow:
        return ""
    say = "This bundle is for Python {0} ({0}.{1} or a later {0}, 64 bit), and this is Python {2}"
    say += (", 32 bit" if narrow else "") + ".\nInstall the 64-bit Python {0} beside it"
    say += ", then start again" + (" by start.bat." if WINDOWS else ", by: python{0} start.py")
    return say.format(MINOR, MICRO, found)


def environment():
    """Where the virtual environment goes: here, or in a short place if the path would grow too long for Windows."""
    if WINDOWS and len(HERE) > LONGEST:
        name = hashlib.sha256(HERE.encode("utf-8")).hexdigest()[:8]
        return os.path.join(os.environ.get("LOCALAPPDATA", os.path.expanduser("~")), "xmalign", name)
    return os.path.join(HERE, ".venv")


def read(path):
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        return file.read().decode("utf-8")


def quiet():
    """This process's environment without what would lead pip or Python elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    kept.update(PIP_CONFIG_FILE=os.devnull, PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONNOUSERSITE="1", PYTHONUTF8="1")
    return kept


def install(env, python, stamp):
    print("First start: making an environment in " + env)
    begun = time.time()
    if subprocess.call([sys.executable, "-m", "venv", "--clear", env], env=quiet()):
        return "No environment could be made. On Debian and Ubuntu: sudo apt install python" + MINOR + "-venv"
    wheels = os.path.join(HERE, "wheels")
    number = len([name for name in os.listdir(wheels) if name.endswith(".whl")])
    command = [python, "-m", "pip", "install", "--no-index", "--find-links", wheels, "--no-warn-script-location"]
    command += ["-e", ".[" + EXTRAS + "]"]
    run = subprocess.Popen(command, cwd=HERE, env=quiet(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen, said = 0, []
    for line in run.stdout:
        said.append(line.decode("utf-8", "replace").rstrip())
        if said[-1].startswith("Processing "):
            seen += 1
            print("\r  looked at {} of {} packages".format(seen, number), end="")
        elif said[-1].startswith("Installing collected"):
            print("\n  unpacking them; this takes a few minutes ...")
        sys.stdout.flush()
    if run.wait():
        return "\n".join(said[-15:]) + "\npip could not install the wheels. Were all files unzipped?"
    with open(stamp[0], "wb") as file:
        file.write(stamp[1].encode("utf-8"))
    print("  done in {:.0f} s".format(time.time() - begun))
    return ""


def compared():
    """(damaged or missing files, notebooks that differ and may: who runs one and saves it changes it), by SHA256SUMS."""
    lines = read(os.path.join(HERE, "SHA256SUMS")).splitlines()
    wrong, own = [] if lines else ["SHA256SUMS"], []
    for line in lines:
        wanted, _, name = line.partition("  ")
        path = os.path.join(HERE, *name.split("/"))
        digest = hashlib.sha256()
        if os.path.isfile(path):
            with open(path, "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
        if digest.hexdigest() != wanted:
            saved = name.startswith("notebooks/") and name.endswith(".ipynb") and os.path.isfile(path)
            (own if saved else wrong).append(name or "SHA256SUMS")
    return wrong, own


def check(python):
    wrong, own = compared()
    if own:
        print("Changed since they were packed, which is fine if you saved them: " + ", ".join(own))
    if wrong:
        print("Damaged or missing: " + ", ".join(wrong[:5]) + (", and {} more".format(len(wrong) - 5) if wrong[5:] else ""))
        return 1
    begun, env = time.time(), quiet()
    env["XMALIGN_PROFILE"] = "smoke"
    notebook = os.path.join("notebooks", "00_start_here.ipynb")
    run = ["-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", "--output-dir", "build", notebook]
    if any(subprocess.call([python] + words, cwd=HERE, env=env) for words in (["-c", "import xmalign_lab.widgets"], run)):
        print("FAILED: the first notebook does not run")
        return 1
    whole = "the other files are whole" if own else "the files are whole"
    print("Everything works: {}, and notebook 00 ran in {:.0f} s".format(whole, time.time() - begun))
    return 0


def main():
    if wrong_python():
        print(wrong_python())
        return 1
    env = environment()
    python = os.path.join(env, "Scripts", "python.exe") if WINDOWS else os.path.join(env, "bin", "python")
    stamp = (os.path.join(env, "installed"), HERE + "\n" + read(os.path.join(HERE, "SHA256SUMS")))
    if read(stamp[0]) != stamp[1]:
        problem = install(env, python, stamp)
        if problem:
            print(problem)
            return 1
    if "--check" in sys.argv:
        return check(python)
    command = [python, "-m", "jupyter", "lab", os.path.join("notebooks", "00_start_here.ipynb")]
    try:
        return subprocess.call(command, cwd=HERE, env=quiet())
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
