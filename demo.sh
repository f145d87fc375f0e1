#!/bin/bash
# The whole product on real files, small, in some four minutes: images -> shards -> a model that is
# stopped and goes on -> weights, what they know, continued -> strategies measured -> the scaling report.
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
pretrain() {
  two_ranks hpcgeo train mae_vit_tiny run.dir="$out/run" data.path="$out/shards" \
    parallel.strategy=FULL_SHARD train.steps=200 train.log_every=25 "$@"
}

what_it_knows() { hpcgeo probe "$1" --cache "$out/features" --out "$out/scores.jsonl"; }

if [[ -z $images ]]; then
  images=$out/scenes
  say "1. Generate georeferenced scenes of town and country"
  [[ -d $images ]] || hpcgeo data synthesize "$images" --classes --scenes 20 --size 512
fi

say "2. Cut $images into chips, in HDF5 shard files"
hpcgeo data build "$images" --out "$out/shards" --chip 128 --workers 2 || (($? == 3)) # 3: some skipped
hpcgeo data info "$out/shards"
hpcgeo data verify "$out/shards"

say "3. Pretrain a tiny masked autoencoder on 2 ranks, sharded by FSDP2; its job ends too soon"
[[ -e $out/run/record.json ]] || pretrain launch.time_limit=8
say "   The same command goes on where it stopped"
pretrain

say "4. Take the weights to another library; fit a linear model to what the encoder says of classes"
[[ -d $out/weights ]] || hpcgeo export "$out/run" --to transformers --out "$out/weights"
classes=$(find "$images" -mindepth 2 -type f -print -quit)
[[ -z $classes ]] || what_it_knows "$out/run"

say "5. Go on from these weights for a while; what they know teaches the run that goes on (GFM)"
two_ranks hpcgeo train mae_vit_tiny run.dir="$out/goes-on" data.path="$out/shards" \
  "objective={name: gfm, mask_cell: 16, teacher: {weights: $out/run}}" model.weights="$out/run" \
  train.steps=40 train.log_every=20
[[ -z $classes ]] || what_it_knows "$out/goes-on"

say "6. Measure three strategies on 1 and 2 ranks"
OMP_NUM_THREADS=1 hpcgeo-profile sweep profiles/demo.yaml data.path="$out/shards" \
  --records "$out/records.jsonl"

say "7. Write the report"
scores=()
[[ -z $classes ]] || scores=("$out/scores.jsonl")
hpcgeo report "$out/records.jsonl" "${scores[@]}" --run "$out/run" --out "$out/report"

say "Look at (the commands are in an environment: source .venv/bin/activate)"
echo "  $out/report/report.html   the winner, a scaling line, where a step goes, reconstructions"
[[ -z $classes ]] || echo "  $out/report/scores.html   what the encoders know of classes, before and after going on"
echo "  tensorboard --logdir $out/run   options, curves and reconstructions, live"
if [[ $(uname) == Darwin ]]; then
  open "$out/report/report.html"
elif [[ -n ${DISPLAY:-}${WAYLAND_DISPLAY:-} ]] && command -v xdg-open > /dev/null; then
  xdg-open "$out/report/report.html" > /dev/null 2>&1 &
fi
