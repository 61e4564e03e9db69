"""What a Pipeline may say about a container, in the words of core/v1: nothing here weakens the floor.

Volumes, variables and placement are the user's; security context, git's folders and the operator's variables are not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from workitems.api.common import Label, Model, SecretKey, Subdomain, cel, exactly_one, validated, wording

ShortText = Annotated[str, Field(max_length=255)]
Image = Annotated[str, Field(min_length=1, max_length=512)]
EnvName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        max_length=253,
        json_schema_extra=wording("a variable's name has letters, digits and '_' only and does not start with a digit"),
    ),
]
MountPath = Annotated[
    str,
    Field(
        pattern=r"^/[^:\x00-\x1f]*$",
        max_length=1024,
        json_schema_extra=wording("write an absolute path without ':'"),
    ),
]
JSONObject = dict[str, Any]


def _number_as_text(value: object) -> object:
    """`cpu: 2` is an integer in YAML and a quantity all the same."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$",
        max_length=32,
        # The API server applies no pattern where there is no single type: the wording makes it a rule.
        json_schema_extra={"x-kubernetes-int-or-string": True} | wording("write a quantity as in 500m, 2 or 4Gi"),
    ),
    # Last, or pydantic would leave the pattern out of the schema.
    BeforeValidator(_number_as_text),
]
"""A quantity of core/v1: 500m, 2, 4Gi."""
Quantities = Annotated[dict[str, Quantity], Field(max_length=20)]


class KeySelector(Model):
    """`secretKeyRef` or `configMapKeyRef` of core/v1."""

    name: Subdomain
    key: SecretKey
    optional: bool | None = None


class EnvValueFrom(Model):
    """Where a variable's value comes from: exactly one of two."""

    model_config = validated(
        cel(
            "has(self.secretKeyRef) != has(self.configMapKeyRef)",
            "valueFrom takes exactly one of secretKeyRef, configMapKeyRef",
        )
    )

    secret_key_ref: KeySelector | None = None
    config_map_key_ref: KeySelector | None = None


class EnvVar(Model):
    """One environment variable of the agent's container."""

    model_config = validated(
        cel("!(has(self.value) && has(self.valueFrom))", "give value or valueFrom, not both"),
        cel(
            "!self.name.startsWith('WORKITEM_') && !self.name.startsWith('GIT_')",
            "WORKITEM_* and GIT_* are set by the operator: choose another name",
            ".name",
        ),
    )

    name: EnvName
    value: Annotated[str, Field(max_length=32768)] | None = None
    value_from: EnvValueFrom | None = None


class LocalRef(Model):
    """A Secret or ConfigMap of the same namespace by name."""

    name: Subdomain
    optional: bool | None = None


class EnvFrom(Model):
    """All keys of a Secret or ConfigMap as variables."""

    model_config = validated(
        cel("has(self.secretRef) != has(self.configMapRef)", "envFrom takes exactly one of secretRef, configMapRef")
    )

    prefix: EnvName | None = None
    secret_ref: LocalRef | None = None
    config_map_ref: LocalRef | None = None


class Volume(Model):
    """A volume for the agent: only kinds that the restricted Pod Security level allows; never hostPath."""

    model_config = validated(
        cel(
            exactly_one("configMap", "secret", "emptyDir", "persistentVolumeClaim"),
            "a volume takes exactly one of configMap, secret, emptyDir, persistentVolumeClaim",
        ),
        cel(
            "!self.name.startsWith('workitem-')",
            "volume names that start with workitem- belong to the operator: choose another name",
            ".name",
        ),
    )

    name: Label
    config_map: JSONObject | None = None
    secret: JSONObject | None = None
    empty_dir: JSONObject | None = None
    persistent_volume_claim: JSONObject | None = None


class VolumeMount(Model):
    """Where the agent finds a volume."""

    model_config = validated(
        cel(
            "!(self.mountPath + '/').matches('^/+(workitem/|workspace/|$)|/[.][.]/')",
            "/, /workitem and /workspace are the operator's, and '..' leads anywhere: mount it elsewhere",
            ".mountPath",
        )
    )

    name: Label
    mount_path: MountPath
    sub_path: Annotated[str, Field(max_length=1024)] | None = None
    read_only: bool | None = None


class Resources(Model):
    """Requests and limits by resource name, as in core/v1."""

    requests: Quantities | None = None
    limits: Quantities | None = None


class Toleration(Model):
    """A toleration of core/v1."""

    key: ShortText | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: ShortText | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None
