#!/bin/bash
# The whole product on real files, small: images -> shards -> pretrained model -> scaling report.
#   demo.sh            on generated scenes
#   demo.sh FOLDER     on your own images
# Everything is written below demo/; a second call goes on where the first one stopped.
set -euo pipefail
images=${1:+$(realpath "$1")}
cd "$(dirname "$0")"
out=demo/$(basename "${images:-generated}")

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Ranks on this host. Nothing here needs torchrun: mpirun and srun do the same.
two_ranks() { OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 --no-python "$@"; }

if [[ -z $images ]]; then
  images=$out/scenes
  say "1. Generate georeferenced scenes"
  [[ -d $images ]] || hpcgeo data synthesize "$images" --scenes 8 --size 1024
fi

say "2. Cut $images into chips, in HDF5 shard files"
hpcgeo data build "$images" --out "$out/shards" --chip 128 --workers 2 || (($? == 3)) # 3: some skipped
hpcgeo data info "$out/shards"
hpcgeo data verify "$out/shards"

say "3. Pretrain a tiny masked autoencoder on 2 ranks, sharded by FSDP2"
two_ranks hpcgeo train mae_vit_tiny run.dir="$out/run" data.path="$out/shards" \
  parallel.strategy=FULL_SHARD train.steps=300 train.log_every=25

say "4. Measure three strategies on 1 and 2 ranks"
hpcgeo-profile sweep profiles/demo.yaml data.path="$out/shards" --records "$out/records.jsonl"

say "5. Write the report"
hpcgeo report "$out/records.jsonl" --run "$out/run" --out "$out/report"

say "Look at"
echo "  $out/report/report.html   the scaling report, with loss curve and reconstructions of the run"
echo "  tensorboard --logdir $out/run   the curves, live"
