"""The files and folders of a workspace, relative to the folder that holds params.yaml."""

from pathlib import Path

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
COMPARE_PIPELINE = Path("comparison/dvc.yaml")
CORPUS_PIPELINE = Path("inputs/corpus/dvc.yaml")
BASE_PIPELINE = Path("inputs/base/dvc.yaml")
STATE = Path(".velocitune")  # locks, compiled code
LOCK = STATE / "lock"
COMPILED = STATE / "compiled"  # code that torch.compile made, for all runs
OPENED_MODEL = STATE / "opened-model.json"  # in which state the model of model.path was last opened and found good
READ_SOURCES = STATE / "read-sources.json"  # in which state each source was last read and found good
OWN_SETTINGS = STATE / "own-settings.json"  # params.yaml before the overrides of a command that goes on
HOLDER = STATE / "holder.json"  # the process that holds the lock, or the last that did
RUNS = Path("runs")  # of the training program, with their checkpoints; kept when a stage fails
PACKING = RUNS / "packing"  # domains that are being packed, until all of them are done

ARCHIVE_LIST = Path("inputs/archives.txt")
ARCHIVES = Path("archives")
EMBEDDED = Path("data/embedded")
BASE_MODEL = Path("models/base")
SIBLING_MODEL = BASE_MODEL / "sibling"  # a smaller model beside it, if base.sibling describes one

PREPARED = Path("prepared")
MANIFEST = PREPARED / "manifest.json"
INITIAL = Path("results/initial.json")
PROXIES = Path("results/proxies")
TARGETS = Path("results/targets.json")
WEIGHTS = Path("results/weights.json")
PLAN_PAGE = Path("results/plan.html")  # of planned weights
TRAIN = Path("results/train.json")
EVENTS = Path("results/events.jsonl")
TRAINED_MODEL = Path("models/trained")
REPORT = Path("report")
COMPARISON = Path("results/comparison.json")
COMPARISON_REPORT = Path("comparison/report")
PLANS = Path("plans")  # in it: weights of planned labels, one for all seeds or one for each
METRICS = Path("metrics.json")
