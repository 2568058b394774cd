#!/bin/sh
# Four GPUs of one machine, each with slices of network and optimiser (leave out --fsdp for a copy in each).
# Continue with: torchrun --standalone --nproc-per-node 4 -m nas3r.cli.main train --resume runs/re10k-dl3dv --fsdp
# on as many GPUs as there are: the number may change.
set -eu
torchrun --standalone --nproc-per-node 4 -m nas3r.cli.main train re10k-dl3dv \
    --data RE10K/train:3 DL3DV/train:1 --model large --fsdp -o runs/re10k-dl3dv
