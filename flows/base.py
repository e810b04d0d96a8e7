"""Stage `base`: a tokenizer and a small base model from some of the domains; skipped with a model of your own."""

from prefect import flow

from flows.prepare import read_all
from tasks.stages.base import build_untrained, has_sibling, pack_base, train_base, train_sibling
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import run_stage


@flow(name="base", flow_run_name="base")
def base() -> None:
    params = checked_params()
    read_all(params)
    build_untrained(params)
    domains = pack_base(params)
    train_base(params, domains)
    if has_sibling(params):
        train_sibling(params, domains)


if __name__ == "__main__":
    run_stage(base, trains=True)
