"""Records in the schema of Every Eval Ever, for collections of evaluations of many harnesses.

Source: https://github.com/evaleval/every_eval_ever, `eval.schema.json`, version 0.2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bench import registry
from bench.results.files import canonical_json
from bench.results.record import Accuracy, Record

VERSION = "0.2.2"


def evaluation(record: Record, organisation: str, first_party: bool) -> dict[str, Any]:
    """Return a finished cell as one evaluation; it holds no time but those of the record.

    Args:
        record: of the cell.
        organisation: who ran it.
        first_party: whether those ran it who made the method.

    Raises:
        BenchError: the cell has no accuracy.
    """
    name, version = registry.own_distribution()
    return {
        "schema_version": VERSION,
        "evaluation_id": f"{name}/{record.suite}/{record.cell_hash}",
        "evaluation_timestamp": record.started,
        "retrieved_timestamp": f"{datetime.fromisoformat(record.ended).timestamp():.0f}",
        "source_metadata": {
            "source_name": name,
            "source_type": "evaluation_run",
            "source_organization_name": organisation,
            "evaluator_relationship": "first_party" if first_party else "third_party",
            "additional_details": {"cell_hash": record.cell_hash, "command": record.command},
        },
        "eval_library": {
            "name": name,
            "version": version,
            "additional_details": _strings(
                {"commit": record.environment.git_commit, **record.environment.packages}
            ),
        },
        "model_info": {
            "name": f"{record.method} ({record.preset}), {record.learner}",
            "id": f"{name}/{record.method}",
            "additional_details": _strings(
                {
                    "network": record.net,
                    "teachers": "+".join(record.architectures),
                    "knowledge": record.knowledge,
                    "calibration": record.calibration,
                    "parameters": record.cost.params,
                    "method_config": canonical_json(record.method_config),
                }
            ),
        },
        "evaluation_results": [_result(record, record.scored)],
    }


def _result(record: Record, accuracy: Accuracy) -> dict[str, Any]:
    shape = f"{record.n_way}-way {record.k_shot}-shot"
    data = "+".join(record.tested)
    digests = [record.dataset_digests.get(name, "") for name in record.tested]
    return {
        "evaluation_result_id": f"{record.cell_hash}/accuracy",
        "evaluation_name": f"{data} {shape}, {record.protocol_label}",
        "evaluation_timestamp": record.ended,
        "source_data": {
            "dataset_name": data,
            "source_type": "other",
            "source_id": "+".join(digests),
            "additional_details": _strings(
                {"split": "test", "task_list_sha256": record.task_list_sha256}
            ),
        },
        "metric_config": {
            "evaluation_description": f"mean accuracy over {accuracy.n} test tasks",
            "metric_id": "accuracy",
            "metric_name": "Accuracy",
            "metric_kind": "accuracy",
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
            "additional_details": _strings(
                {
                    "protocol": canonical_json(record.protocol),
                    "budget": canonical_json(record.budget),
                    "selection": record.selection,
                    "seed": record.seed,
                    "warnings": "; ".join(record.warnings),
                }
            ),
        },
        "score_details": {
            "score": accuracy.mean,
            "uncertainty": {
                "standard_error": {
                    "value": accuracy.std / accuracy.n**0.5,
                    "method": "analytic",
                },
                "confidence_interval": {
                    "lower": accuracy.mean - accuracy.ci95,
                    "upper": accuracy.mean + accuracy.ci95,
                    "confidence_level": 0.95,
                    "method": "normal approximation over test tasks",
                },
                "standard_deviation": accuracy.std,
                "num_samples": accuracy.n,
            },
        },
    }


def _strings(values: Mapping[str, object]) -> dict[str, str]:
    """Return values as strings; those that are not there are left out."""
    return {key: str(value) for key, value in values.items() if value not in (None, "")}
