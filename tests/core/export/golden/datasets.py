# results/train.json: domain weights of the run train, strategy velocitune, 40 steps, 164 k tokens.
# For Hugging Face datasets, which draws documents.
# The weights changed 2 times over the run; this is their mean over its steps.
# Not drawn, as their weight is 0: spare.
# Shares are of documents, by the mean tokens per document in the manifest; documents that are cut off or left
# out change the shares of the tokens.
#
# What a run of 163840 tokens then gets of each domain (weight: share of the tokens that is wanted):
# domain    weight   written  tokens  epochs
# code    0.500000  0.021277   81921   0.800
# legal   0.300000  0.127659   49151   0.960
# off     0.200000  0.851064   32768   1.280
# spare   0.000000         0       0   0.000
from datasets import interleave_datasets, load_dataset

PATHS = {
    "code": "data/code.jsonl",
    "legal": "data/legal.jsonl",
    "off": "data/off.jsonl",
}
PROBABILITIES = {
    "code": 0.021277,
    "legal": 0.127659,
    "off": 0.851064,
}


def mixture(seed=0, streaming=True):
    """Return the mixture; a domain that is exhausted starts again."""
    parts = [load_dataset("json", data_files=PATHS[name], split="train", streaming=streaming) for name in PROBABILITIES]
    probabilities = list(PROBABILITIES.values())
    return interleave_datasets(parts, probabilities=probabilities, seed=seed, stopping_strategy="all_exhausted")
