#!/usr/bin/env bash
# The study of Gu et al. (EMNLP 2024).  How it is called, and what it does: docs/results/run_list.sh
exec bash docs/results/run_list.sh study "$@"
