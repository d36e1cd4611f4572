#!/usr/bin/env bash
# Where methods break, and what the recipe keeps.  How it is called, and what it does: docs/results/run_list.sh
exec bash docs/results/run_list.sh limits "$@"
