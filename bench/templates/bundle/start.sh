#!/bin/sh
# The first start installs from this folder, the next ones open JupyterLab. "./start.sh --check" tries everything.
cd "$(dirname "$0")" || exit 1
for python in python@MINOR@ python3 python; do
  command -v "$python" >/dev/null 2>&1 && exec "$python" start.py "$@"
done
echo "No Python was found. Install Python @MINOR@ and start again."
exit 1
