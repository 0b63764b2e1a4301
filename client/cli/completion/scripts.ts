import { COMPLETE_COMMAND, type Shell } from "../commands/completion.ts";

/**
 * The script that teaches a shell to complete the command line. It asks `toolplane __complete`, which prints one candidate
 * a line, with a tab and a description behind it.
 */
export function completionScript(shell: Shell): string {
  switch (shell) {
    case "bash":
      return BASH;
    case "zsh":
      return ZSH;
    case "fish":
      return FISH;
  }
}

// Readline breaks words at `=` and `:`, which arguments of tools contain: the words are taken from the line instead.
const BASH = `# bash completion for toolplane: source <(toolplane completion bash)
_toolplane() {
  local line="\${COMP_LINE:0:COMP_POINT}" words candidate
  read -r -a words <<<"$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  local current="\${words[\${#words[@]}-1]}"
  COMPREPLY=()
  while IFS=$'\\t' read -r candidate _; do
    [[ -n "$candidate" && "$candidate" == "$current"* ]] && COMPREPLY+=("$candidate")
  done < <("\${words[0]}" ${COMPLETE_COMMAND} -- "\${words[@]:1}" 2>/dev/null)
  if [[ "$current" == *[=:]* ]]; then
    local before="\${current%"\${current##*[=:]}"}"
    COMPREPLY=("\${COMPREPLY[@]#"$before"}")
  fi
  [[ \${#COMPREPLY[@]} -eq 1 && "\${COMPREPLY[0]}" == *= ]] && compopt -o nospace 2>/dev/null
  return 0
}
complete -o default -F _toolplane toolplane
`;

const ZSH = `#compdef toolplane
# zsh completion for toolplane: toolplane completion zsh > "\${fpath[1]}/_toolplane"
_toolplane() {
  local line value description
  local -a candidates
  while IFS= read -r line; do
    value="\${line%%$'\\t'*}"
    description="\${line#*$'\\t'}"
    candidates+=("\${value//:/\\\\:}:\${description}")
  done < <("\${words[1]}" ${COMPLETE_COMMAND} -- "\${(@)words[2,CURRENT]}" 2>/dev/null)
  if (( \${#candidates} )); then
    _describe -t toolplane 'toolplane' candidates
  else
    _files
  fi
}
if [ "$funcstack[1]" = "_toolplane" ]; then
  _toolplane "$@"
else
  compdef _toolplane toolplane
fi
`;

const FISH = `# fish completion for toolplane: toolplane completion fish > ~/.config/fish/completions/toolplane.fish
function __toolplane_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] ${COMPLETE_COMMAND} -- $words[2..-1] 2>/dev/null
end
complete -c toolplane -f -a '(__toolplane_complete)'
`;
