"""A client that openapi-python-client has made: makes real calls and prints what came back."""

import json
import sys
from io import BytesIO

from tollgate_client import AuthenticatedClient, Client
from tollgate_client.api.admin import create_key, import_keys, list_tiers, put_tier, read_key, read_log, read_usage
from tollgate_client.api.holder import me
from tollgate_client.api.open_ import health
from tollgate_client.models import CreateKey, CreateKeyMetadata, IssuedKey, Key, Problem, PutPolicy, PutTier
from tollgate_client.models import Algorithm, Me, Period
from tollgate_client.types import UNSET, File

url, token = sys.argv[1:]
admin = AuthenticatedClient(base_url=url, token=token, raise_on_unexpected_status=True)


def good(answer, kind):
    """What a call gave, which must be of this model."""
    assert isinstance(answer.parsed, kind), (answer.status_code, answer.content)
    return answer.parsed


metadata = CreateKeyMetadata.from_dict({"plan": "trial", "seats": 3})
body = CreateKey(tier="free", name="python", metadata=metadata)
issued = good(create_key.sync_detailed(client=admin, body=body), IssuedKey)
key = good(read_key.sync_detailed(issued.id, client=admin), Key)
usage = read_usage.sync(issued.id, client=admin)
tiers = list_tiers.sync(client=admin, limit=500)
bucket = PutPolicy(policy="minute", quota=60, period=Period.MINUTE, algorithm=Algorithm.BUCKET, burst=120)
tier = put_tier.sync("python", client=admin, body=PutTier(policies=[bucket]))
unknown_tier = good(create_key.sync_detailed(client=admin, body=CreateKey(tier="gold")), Problem)
unknown_key = good(read_key.sync_detailed("aaaaaaaaaaaaaaaa", client=admin), Problem)
wrong_token = good(list_tiers.sync_detailed(client=AuthenticatedClient(base_url=url, token="wrong")), Problem)
holder = Client(base_url=url, headers={"X-API-Key": issued.key})
mine = good(me.sync_detailed(client=holder), Me)
line = json.dumps({"key": "pythons-own-key-1", "tier": "free"}).encode()
imported = import_keys.sync(client=admin, body=File(payload=BytesIO(line)))
log = read_log.sync(client=admin, target=f"keys/{issued.id}")

print(
    json.dumps(
        {
            "plan": key.metadata["plan"],
            "quotas": [policy.quota for policy in usage.policies],
            "tiers": [tier.name for tier in tiers.tiers],
            "pushed": tier.pushed,
            "field": unknown_tier.field,
            "after": log.entries[0].after["metadata"],
            "imported": imported.payload.read().decode(),
            "is_same": issued.id == key.id == mine.key_id and unknown_key.field is UNSET,
            "statuses": [unknown_tier.status, unknown_key.status, wrong_token.status],
            "health": health.sync(client=Client(base_url=url)).status,
        }
    )
)
