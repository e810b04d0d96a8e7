"""Stage `base`: a tokenizer and a small base model from one domain; exists only where no model of your own is named."""

from prefect import flow

from tasks.base import build_untrained, pack_base, train_base
from tasks.preflight import checked_params
from tasks.workspace import run_stage


@flow(name="base")
def base() -> None:
    params = checked_params()
    build_untrained(params)
    domain = pack_base(params)
    train_base(params, domain)


if __name__ == "__main__":
    run_stage(base)
