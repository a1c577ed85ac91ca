# two_at_once COMMAND "ARGUMENTS"...: COMMAND with each, never more than two running; fails when one of them does
two_at_once() {
  local command=$1 running=0 failed=0 arguments; shift
  for arguments in "$@"; do
    if [ "$running" -eq 2 ]; then wait -n || failed=1; running=1; fi
    # shellcheck disable=SC2086  # several words are several arguments
    "$command" $arguments &
    running=$((running + 1))
  done
  for ((; running; running--)); do wait -n || failed=1; done
  return "$failed"
}
