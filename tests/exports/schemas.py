"""What the published formats require, restated as JSON Schema; the source of each beside it."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def thing(required: list[str], more: bool = True, **properties: Schema) -> Schema:
    """Return the schema of an object with required properties."""
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": more,
    }


REFERENCE = thing(["@id"], False, **{"@id": TEXT})
REFERENCES: Schema = {"type": "array", "minItems": 1, "items": REFERENCE}

# https://github.com/evaleval/every_eval_ever, every_eval_ever/schemas/eval.schema.json, 0.2.2
_UNCERTAINTY = thing(
    [],
    standard_error=thing(["value"], value={"type": "number"}, method=TEXT),
    confidence_interval=thing(
        ["lower", "upper"],
        lower={"type": "number"},
        upper={"type": "number"},
        confidence_level={"type": "number", "minimum": 0, "maximum": 1},
        method=TEXT,
    ),
    standard_deviation={"type": "number"},
    num_samples={"type": "integer"},
)
_METRIC = thing(
    ["lower_is_better", "min_score", "max_score"],  # the last two where the score is continuous
    lower_is_better={"type": "boolean"},
    score_type={"const": "continuous"},
    metric_id=TEXT,
    metric_name=TEXT,
    metric_kind=TEXT,
    metric_unit=TEXT,
    min_score={"type": "number"},
    max_score={"type": "number"},
    evaluation_description=TEXT,
    additional_details=STRINGS,
)
EVERY_EVAL_EVER = thing(
    [
        *("schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata"),
        *("model_info", "eval_library", "evaluation_results"),
    ],
    False,
    schema_version={"const": "0.2.2"},
    evaluation_id=TEXT,
    evaluation_timestamp=TEXT,
    retrieved_timestamp={"type": "string", "pattern": "^[0-9]+$"},
    source_metadata=thing(
        ["source_type", "source_organization_name", "evaluator_relationship"],
        source_name=TEXT,
        source_type={"enum": ["documentation", "evaluation_run"]},
        source_organization_name=TEXT,
        evaluator_relationship={"enum": ["first_party", "third_party", "collaborative", "other"]},
        additional_details=STRINGS,
    ),
    eval_library=thing(["name", "version"], name=TEXT, version=TEXT, additional_details=STRINGS),
    model_info=thing(["name", "id"], name=TEXT, id=TEXT, additional_details=STRINGS),
    evaluation_results={
        "type": "array",
        "minItems": 1,
        "items": thing(
            ["evaluation_name", "source_data", "metric_config", "score_details"],
            evaluation_result_id=TEXT,
            evaluation_name=TEXT,
            evaluation_timestamp=TEXT,
            source_data=thing(
                ["dataset_name", "source_type"],
                dataset_name=TEXT,
                source_type={"const": "other"},
                source_id=TEXT,
                source_version=TEXT,
                additional_details=STRINGS,
            ),
            metric_config=_METRIC,
            score_details=thing(
                ["score"], score={"type": "number"}, details=STRINGS, uncertainty=_UNCERTAINTY
            ),
        ),
    },
)

# https://huggingface.co/docs/hub/eval-results and huggingface_hub's EvalResultEntry
EVAL_RESULTS: Schema = {
    "type": "array",
    "minItems": 1,
    "items": thing(
        ["dataset", "value"],
        False,
        dataset=thing(
            ["id", "task_id"],
            False,
            id={"type": "string", "pattern": "^[^/]+/[^/]+$"},
            task_id=TEXT,
            revision=TEXT,
        ),
        value={"type": "number"},
        verifyToken=TEXT,
        date=TEXT,
        source=thing(["url"], False, url=TEXT, name=TEXT, user=TEXT, org=TEXT),
        notes=TEXT,
    ),
}

# https://w3id.org/ro/crate/1.1 (root data entity, files) and https://w3id.org/ro/wfrun/process/0.5
RO_CRATE_ENTITIES: dict[str, Schema] = {
    "descriptor": thing(
        ["@id", "@type", "conformsTo", "about"],
        **{
            "@id": {"const": "ro-crate-metadata.json"},
            "@type": {"const": "CreativeWork"},
            "conformsTo": {"const": {"@id": "https://w3id.org/ro/crate/1.1"}},
            "about": {"const": {"@id": "./"}},
        },
    ),
    "root": thing(
        ["@id", "@type", "name", "description", "datePublished", "license", "conformsTo"],
        **{
            "@type": {"const": "Dataset"},
            "license": REFERENCE,
            "conformsTo": {"const": {"@id": "https://w3id.org/ro/wfrun/process/0.5"}},
            "hasPart": REFERENCES,
            "mentions": REFERENCES,
        },
    ),
    "SoftwareApplication": thing(
        ["@id", "@type", "name", "softwareVersion"], name=TEXT, softwareVersion=TEXT
    ),
    "CreateAction": thing(
        ["@id", "@type", "name", "description", "endTime", "instrument", "result"],
        name=TEXT,
        description=TEXT,
        startTime=TEXT,
        endTime=TEXT,
        instrument=REFERENCES,
        object=REFERENCES,
        result=REFERENCES,
        agent=REFERENCE,
        actionStatus={
            "enum": [
                {"@id": "http://schema.org/CompletedActionStatus"},
                {"@id": "http://schema.org/FailedActionStatus"},
            ]
        },
    ),
    "File": thing(
        ["@id", "@type", "name"],
        contentSize={"type": "string", "pattern": "^[0-9]+$"},
        encodingFormat=TEXT,
        sha256=SHA256,
    ),
}

# http://mlcommons.org/croissant/1.0: required properties, FileObject, RecordSet, Split
_FIELD = thing(
    ["@type", "@id", "dataType"],
    **{"@type": {"const": "cr:Field"}, "@id": TEXT, "dataType": TEXT, "references": REFERENCE},
)
CROISSANT = thing(
    [
        *("@context", "@type", "conformsTo", "description", "license", "name", "url"),
        *("creator", "datePublished", "distribution"),
    ],
    **{
        "@type": {"const": "sc:Dataset"},
        "conformsTo": {"const": "http://mlcommons.org/croissant/1.0"},
        "name": TEXT,
        "description": TEXT,
        "license": thing(["@type", "name"], **{"@type": {"const": "sc:CreativeWork"}}),
        "url": {"type": "string", "pattern": "^https?://"},
        "creator": {"type": "array", "minItems": 1, "items": thing(["@type", "name"], name=TEXT)},
        "datePublished": {"type": "string", "pattern": "^[0-9]{4}"},
        "distribution": {
            "type": "array",
            "minItems": 1,
            "items": {
                **thing(
                    ["@type", "@id", "name", "contentUrl", "encodingFormat"],
                    **{"@type": {"const": "cr:FileObject"}, "sha256": SHA256},
                ),
                "anyOf": [{"required": ["sha256"]}, {"required": ["md5"]}],
            },
        },
        "recordSet": {
            "type": "array",
            "items": thing(
                ["@type", "@id", "key", "field"],
                **{
                    "@type": {"const": "cr:RecordSet"},
                    "key": REFERENCE,
                    "field": {"type": "array", "minItems": 1, "items": _FIELD},
                    "data": {"type": "array", "minItems": 1},
                },
            ),
        },
    },
)

# https://w3id.org/codemeta/3.0: terms of the vocabulary with the type that each has
_AGENT: Schema = {
    "anyOf": [
        thing(["@type", "name"], False, **{"@type": {"const": "Organization"}, "name": TEXT}),
        thing(
            ["@type", "givenName", "familyName"],
            False,
            **{"@type": {"const": "Person"}, "givenName": TEXT, "familyName": TEXT},
        ),
    ]
}
CODEMETA = thing(
    ["@context", "@type", "name", "description", "version", "license", "author"],
    False,
    **{
        "@context": {"const": "https://w3id.org/codemeta/3.0"},
        "@type": {"const": "SoftwareSourceCode"},
        "name": TEXT,
        "description": TEXT,
        "version": TEXT,
        "dateModified": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
        "license": {"type": "string", "pattern": "^https://spdx.org/licenses/"},
        "author": {"type": "array", "minItems": 1, "items": _AGENT},
        "keywords": {"type": "array", "items": TEXT},
        "programmingLanguage": thing(["@type", "name"]),
        "runtimePlatform": TEXT,
        "softwareRequirements": {"type": "array", "items": TEXT},
        "developmentStatus": {
            # https://www.repostatus.org
            "enum": ["concept", "wip", "suspended", "abandoned", "active", "inactive", "moved"]
        },
        "referencePublication": {
            "type": "array",
            "items": thing(
                ["@type", "@id", "name", "author"],
                **{
                    "@type": {"const": "ScholarlyArticle"},
                    "@id": {"type": "string", "pattern": "^https://doi.org/10\\."},
                    "author": {"type": "array", "items": _AGENT},
                },
            ),
        },
    },
)

# https://github.com/citation-file-format/citation-file-format, schema 1.2.0: what this file uses
_CFF_PERSON: Schema = {
    "anyOf": [
        thing(["name"], False, name=TEXT),
        thing(
            ["family-names", "given-names"], False, **{"family-names": TEXT, "given-names": TEXT}
        ),
    ]
}
CFF = thing(
    ["cff-version", "message", "title", "authors"],
    False,
    **{
        "cff-version": {"const": "1.2.0"},
        "message": TEXT,
        "title": TEXT,
        "type": {"enum": ["software", "dataset"]},
        "version": TEXT,
        "date-released": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
        "license": {"const": "MIT"},
        "abstract": TEXT,
        "keywords": {"type": "array", "minItems": 1, "uniqueItems": True, "items": TEXT},
        "authors": {"type": "array", "minItems": 1, "items": _CFF_PERSON},
        "references": {
            "type": "array",
            "items": thing(
                ["type", "title", "authors"],
                False,
                **{
                    "type": {"enum": ["conference-paper", "article", "book", "software"]},
                    "title": TEXT,
                    "authors": {"type": "array", "minItems": 1, "items": _CFF_PERSON},
                    "collection-title": TEXT,
                    "year": {"type": "integer"},
                    "start": {"type": "integer"},
                    "end": {"type": "integer"},
                    "doi": {"type": "string", "pattern": "^10\\.\\d{4,9}(\\.\\d+)?/\\S+$"},
                    "identifiers": {
                        "type": "array",
                        "items": thing(
                            ["type", "value"], False, type=TEXT, value=TEXT, description=TEXT
                        ),
                    },
                },
            ),
        },
    },
)
