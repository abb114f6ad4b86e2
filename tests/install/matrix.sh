#!/usr/bin/env bash
# Installs the package with each extra into fresh environments, and runs it there.
#
#   tests/install/matrix.sh [--python=3.11,3.12,3.13] [--extras=base,test,...] [--pins=newest,oldest]
#
# An environment is deleted before the next is created. Each row of the table gives the first step that
# failed: install, pip check, import of all modules, help, and a training and evaluation of seconds.
# The extras cuda and tpu need their devices and are tried only if named.
set -u

pythons=3.11,3.12,3.13
extras=base,test,tensorboard,beam,convert,pretrained,bench
pins=newest,oldest
for word in "$@"; do
  case $word in
    --python=*) pythons=${word#*=} ;;
    --extras=*) extras=${word#*=} ;;
    --pins=*) pins=${word#*=} ;;
    *) echo "unknown flag $word; see the head of $0" >&2; exit 2 ;;
  esac
done

root=$(cd "$(dirname "$0")/../.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
unset PYTHONPATH PYTHONHOME PIP_CONSTRAINT
export JAX_PLATFORMS=cpu TFDS_DATA_DIR=$place/data PIP_DISABLE_PIP_VERSION_CHECK=1

interpreter() { # the executable of a version, on the path or from pyenv
  local found
  for found in "$(command -v "python$1")" "$HOME"/.pyenv/versions/"$1".*/bin/python; do
    "$found" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null &&
      { echo "$found"; return 0; }
  done
  return 1
}

try() { # python, extra, pins -> the first step that failed, or "works"
  local environment=$place/environment package=$root constraint=()
  rm -rf "$environment" "$place/run"
  "$1" -m venv "$environment" || { echo "venv"; return; }
  local bin=$environment/bin
  [ "$2" = base ] || package="$root[$2]"
  [ "$3" = newest ] || constraint=(-c "$root/constraints/$3.txt")
  "$bin/pip" install -q "${constraint[@]}" "$package" || { echo "install"; return; }
  "$bin/pip" check || { echo "pip check"; return; }
  cd "$place" || return # in the clone, its folder would be imported
  "$bin/python" "$root/tests/install/imports.py" || { echo "import"; return; }
  "$bin/delg" --help > /dev/null || { echo "help"; return; }
  local flags=("--config=quickstart:smoke" "--workdir=$place/run")
  "$bin/delg" train "${flags[@]}" && "$bin/delg" evaluate "${flags[@]}" || { echo "smoke"; return; }
  echo "works"
}

echo "| Python | extra | pins | result | seconds |"
echo "| --- | --- | --- | --- | ---: |"
failed=0
for version in ${pythons//,/ }; do
  executable=$(interpreter "$version") || { echo "| $version | | | not found | |"; continue; }
  for pin in ${pins//,/ }; do
    for extra in ${extras//,/ }; do
      start=$SECONDS
      log=$place/log
      result=$(try "$executable" "$extra" "$pin" 2> "$log" | tee -a "$log" | tail -n 1)
      echo "| $version | $extra | $pin | $result | $((SECONDS - start)) |"
      [ "$result" = works ] || { failed=1; tail -n 15 "$log" >&2; }
    done
  done
done
exit $failed
