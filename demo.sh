#!/bin/bash
# The whole product on real files, small: images -> shards -> pretrained model -> scaling report.
#   demo.sh            on generated scenes
#   demo.sh FOLDER     on your own images
# Everything is written below demo/; a second call goes on where the first one stopped.
set -euo pipefail
cd "$(dirname "$0")"
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Two ranks on this host. Nothing here needs torchrun: mpirun and srun do the same.
two_ranks() { OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 --no-python "$@"; }

images=${1:-demo/scenes}
if [[ -z ${1:-} && ! -d demo/scenes ]]; then
  say "1. Generate georeferenced scenes"
  hpcgeo data synthesize demo/scenes --scenes 8 --size 1024
fi

say "2. Cut $images into chips, in HDF5 shard files"
hpcgeo data build "$images" --out demo/shards --chip 128 --workers 2 || (($? == 3)) # 3: some skipped
hpcgeo data info demo/shards
hpcgeo data verify demo/shards

say "3. Pretrain a tiny masked autoencoder on 2 ranks, sharded by FSDP2"
two_ranks hpcgeo train mae_vit_tiny run.dir=demo/run data.path=demo/shards \
  parallel.strategy=FULL_SHARD train.steps=300

say "4. Measure three strategies on 1 and 2 ranks"
hpcgeo-profile sweep profiles/demo.yaml --records demo/records.jsonl

say "5. Write the report"
hpcgeo report demo/records.jsonl --run demo/run --out demo/report

say "Look at"
echo "  demo/report/report.html                 the scaling report, with the loss curve of the run"
echo "  $(ls demo/run/reconstructions/*.png | tail -1)   input, masked, reconstruction"
echo "  tensorboard --logdir demo/run           the curves, live"
