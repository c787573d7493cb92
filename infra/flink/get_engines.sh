#!/bin/sh
# Brings the engines that are not Python packages into a folder of this user, by the tools that know where from.
#   sh infra/flink/get_engines.sh flink [FLINK_VERSION] [BEAM_VERSION]   job server for Flink (Maven, Java 11)
#   sh infra/flink/get_engines.sh flink-jars [FLINK_VERSION] [BEAM_VERSION]  the same as single jars, to start by hand
#   sh infra/flink/get_engines.sh spark [SPARK_VERSION] [BEAM_VERSION]   job server for Spark
#   sh infra/flink/get_engines.sh prism [BEAM_VERSION]                   Prism, Beam's own engine (Go)
# ENGINES_FOLDER names another folder; PYTHON the interpreter whose Beam decides the version.
set -eu
folder=${ENGINES_FOLDER:-${XDG_CACHE_HOME:-$HOME/.cache}/ddsp/beam}
engine=${1:-}

version_of_beam() {
  "${PYTHON:-python3}" -c 'from importlib.metadata import version; print(version("apache-beam"))'
}

need() {
  command -v "$1" > /dev/null || { echo "$1 is not installed ($2)" >&2; exit 1; }
}

mkdir -p "$folder"
case $engine in
  flink | spark)
    need mvn 'Debian: maven'
    case $engine in flink) default=2.2 ;; *) default=3 ;; esac
    beam=${3:-$(version_of_beam)}
    jar=beam-runners-$engine-${2:-$default}-job-server
    [ -s "$folder/$jar-$beam.jar" ] || \
      mvn --batch-mode --quiet dependency:copy "-Dartifact=org.apache.beam:$jar:$beam" "-DoutputDirectory=$folder" || \
      { echo "$jar $beam is not to be had from the Maven repositories that are set up here" >&2; exit 1; }
    echo "$folder/$jar-$beam.jar" ;;
  flink-jars)  # not every repository serves the large jar; these versions were tried with the Python SDK 2.77
    need mvn 'Debian: maven'
    flink=${2:-1.19} beam=${3:-2.62.0}
    jars=$folder/flink-$flink-job-server-$beam
    [ -d "$jars" ] || {
      rm -rf "$jars.part"
      mvn --batch-mode --quiet --file "$(dirname "$0")/pom.xml" dependency:copy-dependencies \
        "-Dflink.version=$flink" "-Dbeam.version=$beam" -DincludeScope=runtime "-DoutputDirectory=$jars.part"
      mv "$jars.part" "$jars"
    }
    echo "$jars" ;;
  prism)
    need go 'Debian: golang'
    beam=${2:-$(version_of_beam)}
    [ -x "$folder/prism-$beam" ] || {
      GOBIN=$folder GOFLAGS=-mod=mod go install "github.com/apache/beam/sdks/v2/go/cmd/prism@v$beam"
      mv "$folder/prism" "$folder/prism-$beam"
    }
    echo "$folder/prism-$beam" ;;
  *)
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2 ;;
esac
