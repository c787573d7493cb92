#!/bin/sh
# Tries the crepe package, which fetches its weights from GitHub while it builds and needs an old setuptools for that.
# Where it cannot be built, says so and goes on: everything else works without it.
# usage: sh infra/install_crepe.sh .venv/bin
bin=$1
"$bin/python" -c 'import crepe' 2>/dev/null && exit 0
constraint=$(mktemp)
echo 'setuptools<81' > "$constraint"
if timeout 180 "$bin/uv" pip install --quiet --python "$bin/python" --build-constraint "$constraint" 'crepe>=0.0.16,<0.1' \
    >/dev/null 2>&1; then
  echo 'crepe: installed with its weights'
else
  echo 'crepe: could not be built here (its set-up downloads weights from GitHub); f0 comes from the other estimators.'
  echo '       docs/f0.md lists the other places where the weights are looked for.'
fi
rm -f "$constraint"
