#!/bin/sh
# Draws the pictures of docs/autodiff.md and docs/pictures.md anew, into docs/pictures. Arguments name another `fluxion` and another folder.
set -eu
cd "$(dirname "$0")/.."

fluxion=${1:-build/release/bin/fluxion}
folder=${2:-docs/pictures}
mkdir -p "$folder"

# draw NAME OPTIONS..
draw() {
  name=$1
  shift
  "$fluxion" graph "$@" --out "$folder/$name.svg"
}

draw tanh-jvp tanh-chain --depth 2 --transform jvp
draw tanh-vjp tanh-chain --depth 2 --transform vjp
draw silu-jvp silu-product --transform jvp
draw silu-jvp-plan silu-product --transform jvp --stage plan
draw silu-grad-of-jvp silu-product --transform grad-of-jvp
draw softmax-jvp softmax --transform jvp
draw softmax-jvp-simplified softmax --transform jvp --stage simplified
draw softmax-jvp-plan softmax --transform jvp --stage plan
draw attention-jvp attention --transform jvp
draw attention-vjp attention --transform vjp
draw meanflow-vjp meanflow-loss --transform vjp
draw block-jvp-plan dit-block --transform jvp --stage plan --batch 64 --tokens 49 --width 128 --heads 4
draw block-jvp-memory dit-block --transform jvp --stage memory --batch 64 --tokens 49 --width 128 --heads 4
draw block-vjp-memory dit-block --transform vjp --stage memory --batch 64 --tokens 49 --width 128 --heads 4
