#compdef velt-sidecar

autoload -U is-at-least

_velt-sidecar() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_velt-sidecar_commands" \
"*::: :->velt-sidecar" \
&& ret=0
    case $state in
    (velt-sidecar)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:velt-sidecar-command-$line[1]:"
        case $line[1] in
            (run)
_arguments "${_arguments_options[@]}" : \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(check)
_arguments "${_arguments_options[@]}" : \
'--format=[Print the settings in force and complaints for people, or one JSON object for programs]:FORMAT:(text json)' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'--without-secrets[Check on a machine without the secrets, as in CI\: name the secrets and files that are not there instead of failing]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(schema)
_arguments "${_arguments_options[@]}" : \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
'--user=[User id for one mint, whose token is dropped]:CANARY:_default' \
'--organization=[Organization of that user, where the configuration has none for all users]:ID:_default' \
'--timeout=[Time limit for each check]:TIME:_default' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'--json[Print one JSON object]' \
'--no-mint[Mint nothing, and report an unreachable Velt as a warning]' \
'--init[Run as an init container\: as --no-mint, and only what prevents the sidecar'\''s start is a problem]' \
'--strict[Let warnings count as problems]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(demo)
_arguments "${_arguments_options[@]}" : \
'--listen=[Address to open in the browser\: the demo'\''s login proxy listens here]:ADDRESS:_default' \
'--app=[Put the demo'\''s login, sidecar and emulator in front of this app, and a panel into its pages \[default\: a small app of the demo'\''s own\]]:URL:_default' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(emulator)
_arguments "${_arguments_options[@]}" : \
'--listen=[Address of the emulator]:ADDRESS:_default' \
'--api-key=[Accept only this API key \[default\: any\]]:API_KEY:_default' \
'--auth-token=[Accept only this auth token \[default\: any\]]:AUTH_TOKEN:_default' \
'--token-life=[Seconds from a token'\''s iat to its exp]:SECONDS:_default' \
'--latency=[Milliseconds that every mint takes]:MILLISECONDS:_default' \
'--failure=[Failure with which every mint ends]:FAILURE:((unavailable\:""
internal\:""
rate_limited\:""
permission_denied\:""
invalid_argument\:""
malformed\:"Says 200 and sends no token"))' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(explain)
_arguments "${_arguments_options[@]}" : \
'*-H+[A header of the request, such as "X-Forwarded-User\: ada"; may be repeated]:HEADER:_default' \
'*--header=[A header of the request, such as "X-Forwarded-User\: ada"; may be repeated]:HEADER:_default' \
'--peer=[Address of the peer that sends the request\: the login proxy, as a rule \[default\: 127.0.0.1\]]:ADDRESS:_default' \
'*--peer-name=[A name in the certificate that the peer shows; may be repeated]:NAME:_default' \
'--data=[Body of the request]:BODY:_default' \
'*--response-header=[A header of the app'\''s response, such as "Cache-Control\: no-store"; may be repeated]:HEADER:_default' \
'--response-status=[The status of the app'\''s response \[default\: 200\]]:STATUS:_default' \
'--curl=[A curl command in one argument, as a browser copies it]:COMMAND:_default' \
'--admin=[Ask the running sidecar, which knows its cache\: at this URL, or at admin.address of the configuration \[default\: by the configuration alone\]]::URL:_default' \
'--admin-token-file=[File with the admin token; without it, the token in \`VELT_SIDECAR_ADMIN_TOKEN\` counts \[default\: none\]]:FILE:_files' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'--http2[Let the request come over HTTP/2]' \
'--json[Print JSON]' \
'(--admin)--without-secrets[Explain on a machine without the secrets, by stand-ins for them]' \
'-h[Print help]' \
'--help[Print help]' \
'*::line -- `\[METHOD\] PATH`, or a URL:_default' \
&& ret=0
;;
(admin)
_arguments "${_arguments_options[@]}" : \
'--admin=[URL of the admin port \[default\: admin.address of the configuration, on this machine\]]:URL:_default' \
'--admin-token-file=[File with the admin token; without it, the token in \`VELT_SIDECAR_ADMIN_TOKEN\` counts \[default\: none\]]:FILE:_files' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
":: :_velt-sidecar__subcmd__admin_commands" \
"*::: :->admin" \
&& ret=0

    case $state in
    (admin)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:velt-sidecar-admin-command-$line[1]:"
        case $line[1] in
            (invalidate)
_arguments "${_arguments_options[@]}" : \
'--user=[Forget the tokens of this user id]:ID:_default' \
'--organization=[Forget the tokens of all users of this organization]:ID:_default' \
'--admin=[URL of the admin port \[default\: admin.address of the configuration, on this machine\]]:URL:_default' \
'--admin-token-file=[File with the admin token; without it, the token in \`VELT_SIDECAR_ADMIN_TOKEN\` counts \[default\: none\]]:FILE:_files' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'--everything[Forget the tokens of all users]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(log-level)
_arguments "${_arguments_options[@]}" : \
'--admin=[URL of the admin port \[default\: admin.address of the configuration, on this machine\]]:URL:_default' \
'--admin-token-file=[File with the admin token; without it, the token in \`VELT_SIDECAR_ADMIN_TOKEN\` counts \[default\: none\]]:FILE:_files' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
'::level -- error, warn, info or debug:(error warn info debug)' \
&& ret=0
;;
(config)
_arguments "${_arguments_options[@]}" : \
'--admin=[URL of the admin port \[default\: admin.address of the configuration, on this machine\]]:URL:_default' \
'--admin-token-file=[File with the admin token; without it, the token in \`VELT_SIDECAR_ADMIN_TOKEN\` counts \[default\: none\]]:FILE:_files' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(refusals)
_arguments "${_arguments_options[@]}" : \
'--admin=[URL of the admin port \[default\: admin.address of the configuration, on this machine\]]:URL:_default' \
'--admin-token-file=[File with the admin token; without it, the token in \`VELT_SIDECAR_ADMIN_TOKEN\` counts \[default\: none\]]:FILE:_files' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_velt-sidecar__subcmd__admin__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:velt-sidecar-admin-help-command-$line[1]:"
        case $line[1] in
            (invalidate)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(log-level)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(config)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(refusals)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(health)
_arguments "${_arguments_options[@]}" : \
'--admin=[URL of the admin port \[default\: admin.address of the configuration, on this machine\]]:URL:_default' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'--live[Ask whether the sidecar runs (the default)]' \
'--ready[Ask whether traffic should come to the sidecar]' \
'--startup[Ask whether the sidecar has started]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(drain)
_arguments "${_arguments_options[@]}" : \
'--admin=[URL of the admin port \[default\: admin.address of the configuration, on this machine\]]:URL:_default' \
'--admin-token-file=[File with the admin token; without it, the token in \`VELT_SIDECAR_ADMIN_TOKEN\` counts \[default\: none\]]:FILE:_files' \
'--wait=[End only after this time, such as 10s\: the kubelet sends SIGTERM when the hook has ended]:TIME:_default' \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(version)
_arguments "${_arguments_options[@]}" : \
'--config=[Configuration file, not for demo and emulator \[default\: sidecar.toml, if it is there\]]:FILE:_files' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_velt-sidecar__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:velt-sidecar-help-command-$line[1]:"
        case $line[1] in
            (run)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(check)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(schema)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(demo)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(emulator)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(explain)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(admin)
_arguments "${_arguments_options[@]}" : \
":: :_velt-sidecar__subcmd__help__subcmd__admin_commands" \
"*::: :->admin" \
&& ret=0

    case $state in
    (admin)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:velt-sidecar-help-admin-command-$line[1]:"
        case $line[1] in
            (invalidate)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(log-level)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(config)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(refusals)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(health)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(drain)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(version)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_velt-sidecar_commands] )) ||
_velt-sidecar_commands() {
    local commands; commands=(
'run:Run the sidecar (the default)' \
'check:Check the configuration and print what is in force, secrets redacted' \
'schema:Print the JSON schema of sidecar.toml, for editors' \
'doctor:Examine the whole set-up, Velt and the app included, and say what to do about what is wrong' \
'demo:Run a sidecar, an app and an emulator of Velt on loopback, and show them on a page' \
'emulator:Emulate Velt'\''s token APIs (legacy, v1, v2), for tests without an account' \
'explain:Explain how a request would be answered, and which settings decide it' \
'admin:Make an admin call to a running sidecar' \
'health:Ask a running sidecar for its health; exits with 0 or 1' \
'drain:Tell a running sidecar to drain\: not ready, still accepting. For a preStop hook' \
'version:Print the version' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'velt-sidecar commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__admin_commands] )) ||
_velt-sidecar__subcmd__admin_commands() {
    local commands; commands=(
'invalidate:Forget cached tokens, remembered failures and details of users, so that the next request mints anew' \
'log-level:Show the log'\''s level, or set it until the next start' \
'config:Show the configuration in force, secrets redacted' \
'refusals:Show what was refused lately, and how often' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'velt-sidecar admin commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__admin__subcmd__config_commands] )) ||
_velt-sidecar__subcmd__admin__subcmd__config_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar admin config commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__admin__subcmd__help_commands] )) ||
_velt-sidecar__subcmd__admin__subcmd__help_commands() {
    local commands; commands=(
'invalidate:Forget cached tokens, remembered failures and details of users, so that the next request mints anew' \
'log-level:Show the log'\''s level, or set it until the next start' \
'config:Show the configuration in force, secrets redacted' \
'refusals:Show what was refused lately, and how often' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'velt-sidecar admin help commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__admin__subcmd__help__subcmd__config_commands] )) ||
_velt-sidecar__subcmd__admin__subcmd__help__subcmd__config_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar admin help config commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__admin__subcmd__help__subcmd__help_commands] )) ||
_velt-sidecar__subcmd__admin__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar admin help help commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__admin__subcmd__help__subcmd__invalidate_commands] )) ||
_velt-sidecar__subcmd__admin__subcmd__help__subcmd__invalidate_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar admin help invalidate commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__admin__subcmd__help__subcmd__log-level_commands] )) ||
_velt-sidecar__subcmd__admin__subcmd__help__subcmd__log-level_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar admin help log-level commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__admin__subcmd__help__subcmd__refusals_commands] )) ||
_velt-sidecar__subcmd__admin__subcmd__help__subcmd__refusals_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar admin help refusals commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__admin__subcmd__invalidate_commands] )) ||
_velt-sidecar__subcmd__admin__subcmd__invalidate_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar admin invalidate commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__admin__subcmd__log-level_commands] )) ||
_velt-sidecar__subcmd__admin__subcmd__log-level_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar admin log-level commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__admin__subcmd__refusals_commands] )) ||
_velt-sidecar__subcmd__admin__subcmd__refusals_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar admin refusals commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__check_commands] )) ||
_velt-sidecar__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar check commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__demo_commands] )) ||
_velt-sidecar__subcmd__demo_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar demo commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__doctor_commands] )) ||
_velt-sidecar__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar doctor commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__drain_commands] )) ||
_velt-sidecar__subcmd__drain_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar drain commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__emulator_commands] )) ||
_velt-sidecar__subcmd__emulator_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar emulator commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__explain_commands] )) ||
_velt-sidecar__subcmd__explain_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar explain commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__health_commands] )) ||
_velt-sidecar__subcmd__health_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar health commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help_commands] )) ||
_velt-sidecar__subcmd__help_commands() {
    local commands; commands=(
'run:Run the sidecar (the default)' \
'check:Check the configuration and print what is in force, secrets redacted' \
'schema:Print the JSON schema of sidecar.toml, for editors' \
'doctor:Examine the whole set-up, Velt and the app included, and say what to do about what is wrong' \
'demo:Run a sidecar, an app and an emulator of Velt on loopback, and show them on a page' \
'emulator:Emulate Velt'\''s token APIs (legacy, v1, v2), for tests without an account' \
'explain:Explain how a request would be answered, and which settings decide it' \
'admin:Make an admin call to a running sidecar' \
'health:Ask a running sidecar for its health; exits with 0 or 1' \
'drain:Tell a running sidecar to drain\: not ready, still accepting. For a preStop hook' \
'version:Print the version' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'velt-sidecar help commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__admin_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__admin_commands() {
    local commands; commands=(
'invalidate:Forget cached tokens, remembered failures and details of users, so that the next request mints anew' \
'log-level:Show the log'\''s level, or set it until the next start' \
'config:Show the configuration in force, secrets redacted' \
'refusals:Show what was refused lately, and how often' \
    )
    _describe -t commands 'velt-sidecar help admin commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__admin__subcmd__config_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__admin__subcmd__config_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help admin config commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__admin__subcmd__invalidate_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__admin__subcmd__invalidate_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help admin invalidate commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__admin__subcmd__log-level_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__admin__subcmd__log-level_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help admin log-level commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__admin__subcmd__refusals_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__admin__subcmd__refusals_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help admin refusals commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__check_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help check commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__demo_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__demo_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help demo commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__doctor_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help doctor commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__drain_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__drain_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help drain commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__emulator_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__emulator_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help emulator commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__explain_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__explain_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help explain commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__health_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__health_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help health commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__help_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help help commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__run_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__run_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help run commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__schema_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__schema_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help schema commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__help__subcmd__version_commands] )) ||
_velt-sidecar__subcmd__help__subcmd__version_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar help version commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__run_commands] )) ||
_velt-sidecar__subcmd__run_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar run commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__schema_commands] )) ||
_velt-sidecar__subcmd__schema_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar schema commands' commands "$@"
}
(( $+functions[_velt-sidecar__subcmd__version_commands] )) ||
_velt-sidecar__subcmd__version_commands() {
    local commands; commands=()
    _describe -t commands 'velt-sidecar version commands' commands "$@"
}

if [ "$funcstack[1]" = "_velt-sidecar" ]; then
    _velt-sidecar "$@"
else
    compdef _velt-sidecar velt-sidecar
fi
