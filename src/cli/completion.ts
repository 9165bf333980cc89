// `causeway completion SHELL`: scripts that ask `causeway __complete WORDS…` for candidates, one a line, `word<TAB>meaning`.
// The scripts hold no knowledge of the commands, so they never go stale.
import { Argument } from 'commander';
import { examples, type Group } from './command.ts';
import type { Answer, Session } from './session.ts';

const bash = `# bash completion of causeway: source <(causeway completion bash)
_causeway() {
  local IFS=$'\\n'
  COMPREPLY=($(causeway __complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f1))
  [[ \${#COMPREPLY[@]} -eq 1 && \${COMPREPLY[0]} == *= ]] && compopt -o nospace
  return 0
}
complete -o default -F _causeway causeway
`;

const zsh = `#compdef causeway
# zsh completion of causeway: source <(causeway completion zsh)
_causeway() {
  local -a words_ lines
  local line
  words_=("\${(@)words[2,CURRENT]}")
  while IFS= read -r line; do
    line=\${line//:/\\\\:}
    lines+=("\${line/$'\\t'/:}")
  done < <(causeway __complete "\${(@)words_}" 2>/dev/null)
  if (( \${#lines} )); then _describe causeway lines; else _files; fi
}
# Loaded from fpath, the file is the function's first call; sourced, it only registers.
if [[ $funcstack[1] == _causeway ]]; then _causeway; else compdef _causeway causeway; fi
`;

const fish = `# fish completion of causeway: causeway completion fish | source
function __causeway_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l lines (causeway __complete $words[2..-1] 2>/dev/null)
  if set -q lines[1]
    printf '%s\\n' $lines
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c causeway -f -a '(__causeway_complete)'
`;

const scripts: Readonly<Record<string, string>> = { bash, zsh, fish };

async function completion(_session: Session, [shell = '']: readonly string[]): Promise<Answer> {
  const script = scripts[shell] ?? '';
  return { data: { shell, script }, names: [shell], text: () => script };
}

export const group: Group = {
  build(command, act) {
    command.addArgument(new Argument('<shell>', 'which shell').choices(Object.keys(scripts)));
    act(
      examples(
        command,
        'source <(causeway completion bash)',
        'causeway completion zsh > "${fpath[1]}/_causeway"',
        'causeway completion fish > ~/.config/fish/completions/causeway.fish',
      ),
      completion,
    );
  },
};
