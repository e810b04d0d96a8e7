"""The run that one started, as Prefect's UI shows it: its name and tags."""

from __future__ import annotations

import logging

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from tasks.workspace.prefect_logging import errors_without_traceback
from velocitune_core.config import Params
from velocitune_core.style.text import counted

logger = logging.getLogger(__name__)


def run_name(params: Params, comparing: bool) -> str:
    """Return a name such as 'train · velocitune · seed 1'."""
    if comparing and params.compare is not None:
        labels, seeds = len(params.compare.runs), len(params.compare.seeds)
        return f"compare · {counted(labels, 'strategy')} · {counted(seeds, 'seed')}"
    return f"train · {params.strategy.name} · seed {params.training.seed}"


def run_tags(params: Params, comparing: bool) -> list[str]:
    """Return the tags that runs are found by: strategy, seed, and the experiment of MLflow."""
    tags = [f"experiment: {params.tracking.experiment}"]
    if comparing and params.compare is not None:
        return ["comparison", *(f"seed: {seed}" for seed in params.compare.seeds), *tags]
    return [f"strategy: {params.strategy.name}", f"seed: {params.training.seed}", *tags]


def is_stage_of_pipeline() -> bool:
    """Return whether the flow that this is called in was called by another one."""
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.parent_task_run_id is not None


def name_run(params: Params, comparing: bool) -> None:
    """Name and tag the flow run that this is called in. If Prefect's server refuses, log a warning."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    run = context.flow_run
    try:
        with get_client(sync_client=True) as client:
            tags = list(dict.fromkeys([*run.tags, *run_tags(params, comparing)]))
            client.update_flow_run(run.id, name=run_name(params, comparing), tags=tags)
    except Exception as error:
        logger.warning("Prefect did not take the name of the run: %s", error)


def log_briefly_if_deployed() -> None:
    """In the process of a deployment's run, log errors as the command line shows them."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None:
        errors_without_traceback()
