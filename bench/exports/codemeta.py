"""The package itself as CodeMeta, from its citation file and its metadata.

Source: CodeMeta 3.0, https://w3id.org/codemeta/3.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution
from typing import Any

CONTEXT = "https://w3id.org/codemeta/3.0"


def codemeta(citation: Mapping[str, Any], package: Distribution) -> dict[str, Any]:
    """Return the description of the software, as JSON-LD.

    Args:
        citation: the content of CITATION.cff.
        package: the installed distribution.
    """
    metadata = package.metadata
    found: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "SoftwareSourceCode",
        "name": metadata["Name"],
        "description": citation["abstract"],
        "version": citation["version"],
        "dateModified": str(citation["date-released"]),
        "license": f"https://spdx.org/licenses/{citation['license']}",
        "author": [_agent(one) for one in citation["authors"]],
        "keywords": list(citation["keywords"]),
        "programmingLanguage": {"@type": "ComputerLanguage", "name": "Python"},
        "runtimePlatform": f"Python {metadata['Requires-Python']}",
        "softwareRequirements": sorted(_requirements(package.requires or ())),
        "developmentStatus": "active",
        "referencePublication": [_publication(one) for one in citation.get("references", ())],
    }
    return found


def _requirements(lines: Iterable[str]) -> Iterable[str]:
    """Yield the requirements that belong to no extra."""
    return (line for line in lines if "extra ==" not in line)


def _agent(one: Mapping[str, Any]) -> dict[str, Any]:
    if "name" in one:
        return {"@type": "Organization", "name": one["name"]}
    names = {"givenName": one["given-names"], "familyName": one["family-names"]}
    return {"@type": "Person", **names}


def _publication(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "ScholarlyArticle",
        "@id": f"https://doi.org/{one['doi']}",
        "name": one["title"],
        "author": [_agent(author) for author in one["authors"]],
        "datePublished": str(one["year"]),
        "identifier": one["doi"],
    }
