# Reads manifests from standard input and prints them as JSON. With the word `schemas` it first holds those of the Prometheus
# operator to its schemas; kubernetes-validate does the others.
import json
import sys

import yaml

documents = [document for document in yaml.safe_load_all(sys.stdin) if document]
for document in documents if "schemas" in sys.argv else []:
    if document["apiVersion"] == "monitoring.coreos.com/v1":
        from cloudcoil.models.prometheus_operator import v1

        read = getattr(v1, document["kind"]).model_validate(document)
        # The models pass over a field that they do not know; then it is missing here.
        if read.model_dump(mode="json", by_alias=True, exclude_unset=True) != document:
            sys.exit(f"{document['kind']} has a field that its schema does not know")
json.dump(documents, sys.stdout)
