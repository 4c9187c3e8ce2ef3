# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_velt_sidecar_global_optspecs
    string join \n config= h/help V/version
end

function __fish_velt_sidecar_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_velt_sidecar_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_velt_sidecar_using_subcommand
    set -l cmd (__fish_velt_sidecar_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -s V -l version -d 'Print version'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "run" -d 'Run the sidecar (the default)'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "check" -d 'Check the configuration and print what is in force, secrets redacted'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "schema" -d 'Print the JSON schema of sidecar.toml, for editors'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "doctor" -d 'Examine the whole set-up, Velt and the app included, and say what to do about what is wrong'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "demo" -d 'Run a sidecar, an app and an emulator of Velt on loopback, and show them on a page'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "emulator" -d 'Emulate Velt\'s token APIs (legacy, v1, v2), for tests without an account'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "explain" -d 'Explain how a request would be answered, and which settings decide it'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "admin" -d 'Make an admin call to a running sidecar'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "health" -d 'Ask a running sidecar for its health; exits with 0 or 1'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "drain" -d 'Tell a running sidecar to drain: not ready, still accepting. For a preStop hook'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "version" -d 'Print the version'
complete -c velt-sidecar -n "__fish_velt_sidecar_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand run" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand run" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand check" -l format -d 'Print the settings in force and complaints for people, or one JSON object for programs' -r -f -a "text\t''
json\t''"
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand check" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand check" -l without-secrets -d 'Check on a machine without the secrets, as in CI: name the secrets and files that are not there instead of failing'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand check" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand schema" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand schema" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand doctor" -l user -d 'User id for one mint, whose token is dropped' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand doctor" -l organization -d 'Organization of that user, where the configuration has none for all users' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand doctor" -l timeout -d 'Time limit for each check' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand doctor" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand doctor" -l json -d 'Print one JSON object'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand doctor" -l no-mint -d 'Mint nothing, and report an unreachable Velt as a warning'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand doctor" -l init -d 'Run as an init container: as --no-mint, and only what prevents the sidecar\'s start is a problem'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand doctor" -l strict -d 'Let warnings count as problems'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand demo" -l listen -d 'Address to open in the browser: the demo\'s login proxy listens here' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand demo" -l app -d 'Put the demo\'s login, sidecar and emulator in front of this app, and a panel into its pages [default: a small app of the demo\'s own]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand demo" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand demo" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand emulator" -l listen -d 'Address of the emulator' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand emulator" -l api-key -d 'Accept only this API key [default: any]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand emulator" -l auth-token -d 'Accept only this auth token [default: any]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand emulator" -l token-life -d 'Seconds from a token\'s iat to its exp' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand emulator" -l latency -d 'Milliseconds that every mint takes' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand emulator" -l failure -d 'Failure with which every mint ends' -r -f -a "unavailable\t''
internal\t''
rate_limited\t''
permission_denied\t''
invalid_argument\t''
malformed\t'Says 200 and sends no token'"
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand emulator" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand emulator" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -s H -l header -d 'A header of the request, such as "X-Forwarded-User: ada"; may be repeated' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l peer -d 'Address of the peer that sends the request: the login proxy, as a rule [default: 127.0.0.1]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l peer-name -d 'A name in the certificate that the peer shows; may be repeated' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l data -d 'Body of the request' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l response-header -d 'A header of the app\'s response, such as "Cache-Control: no-store"; may be repeated' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l response-status -d 'The status of the app\'s response [default: 200]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l curl -d 'A curl command in one argument, as a browser copies it' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l admin -d 'Ask the running sidecar, which knows its cache: at this URL, or at admin.address of the configuration [default: by the configuration alone]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l admin-token-file -d 'File with the admin token; without it, the token in `VELT_SIDECAR_ADMIN_TOKEN` counts [default: none]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l http2 -d 'Let the request come over HTTP/2'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l json -d 'Print JSON'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -l without-secrets -d 'Explain on a machine without the secrets, by stand-ins for them'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand explain" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and not __fish_seen_subcommand_from invalidate log-level config refusals help" -l admin -d 'URL of the admin port [default: admin.address of the configuration, on this machine]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and not __fish_seen_subcommand_from invalidate log-level config refusals help" -l admin-token-file -d 'File with the admin token; without it, the token in `VELT_SIDECAR_ADMIN_TOKEN` counts [default: none]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and not __fish_seen_subcommand_from invalidate log-level config refusals help" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and not __fish_seen_subcommand_from invalidate log-level config refusals help" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and not __fish_seen_subcommand_from invalidate log-level config refusals help" -f -a "invalidate" -d 'Forget cached tokens, remembered failures and details of users, so that the next request mints anew'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and not __fish_seen_subcommand_from invalidate log-level config refusals help" -f -a "log-level" -d 'Show the log\'s level, or set it until the next start'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and not __fish_seen_subcommand_from invalidate log-level config refusals help" -f -a "config" -d 'Show the configuration in force, secrets redacted'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and not __fish_seen_subcommand_from invalidate log-level config refusals help" -f -a "refusals" -d 'Show what was refused lately, and how often'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and not __fish_seen_subcommand_from invalidate log-level config refusals help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from invalidate" -l user -d 'Forget the tokens of this user id' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from invalidate" -l organization -d 'Forget the tokens of all users of this organization' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from invalidate" -l admin -d 'URL of the admin port [default: admin.address of the configuration, on this machine]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from invalidate" -l admin-token-file -d 'File with the admin token; without it, the token in `VELT_SIDECAR_ADMIN_TOKEN` counts [default: none]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from invalidate" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from invalidate" -l everything -d 'Forget the tokens of all users'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from invalidate" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from log-level" -l admin -d 'URL of the admin port [default: admin.address of the configuration, on this machine]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from log-level" -l admin-token-file -d 'File with the admin token; without it, the token in `VELT_SIDECAR_ADMIN_TOKEN` counts [default: none]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from log-level" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from log-level" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from config" -l admin -d 'URL of the admin port [default: admin.address of the configuration, on this machine]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from config" -l admin-token-file -d 'File with the admin token; without it, the token in `VELT_SIDECAR_ADMIN_TOKEN` counts [default: none]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from config" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from config" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from refusals" -l admin -d 'URL of the admin port [default: admin.address of the configuration, on this machine]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from refusals" -l admin-token-file -d 'File with the admin token; without it, the token in `VELT_SIDECAR_ADMIN_TOKEN` counts [default: none]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from refusals" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from refusals" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "invalidate" -d 'Forget cached tokens, remembered failures and details of users, so that the next request mints anew'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "log-level" -d 'Show the log\'s level, or set it until the next start'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "config" -d 'Show the configuration in force, secrets redacted'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "refusals" -d 'Show what was refused lately, and how often'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand health" -l admin -d 'URL of the admin port [default: admin.address of the configuration, on this machine]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand health" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand health" -l live -d 'Ask whether the sidecar runs (the default)'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand health" -l ready -d 'Ask whether traffic should come to the sidecar'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand health" -l startup -d 'Ask whether the sidecar has started'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand health" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand drain" -l admin -d 'URL of the admin port [default: admin.address of the configuration, on this machine]' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand drain" -l admin-token-file -d 'File with the admin token; without it, the token in `VELT_SIDECAR_ADMIN_TOKEN` counts [default: none]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand drain" -l wait -d 'End only after this time, such as 10s: the kubelet sends SIGTERM when the hook has ended' -r
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand drain" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand drain" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand version" -l config -d 'Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]' -r -F
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand version" -s h -l help -d 'Print help'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "run" -d 'Run the sidecar (the default)'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "check" -d 'Check the configuration and print what is in force, secrets redacted'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "schema" -d 'Print the JSON schema of sidecar.toml, for editors'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "doctor" -d 'Examine the whole set-up, Velt and the app included, and say what to do about what is wrong'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "demo" -d 'Run a sidecar, an app and an emulator of Velt on loopback, and show them on a page'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "emulator" -d 'Emulate Velt\'s token APIs (legacy, v1, v2), for tests without an account'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "explain" -d 'Explain how a request would be answered, and which settings decide it'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "admin" -d 'Make an admin call to a running sidecar'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "health" -d 'Ask a running sidecar for its health; exits with 0 or 1'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "drain" -d 'Tell a running sidecar to drain: not ready, still accepting. For a preStop hook'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "version" -d 'Print the version'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and not __fish_seen_subcommand_from run check schema doctor demo emulator explain admin health drain version help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "invalidate" -d 'Forget cached tokens, remembered failures and details of users, so that the next request mints anew'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "log-level" -d 'Show the log\'s level, or set it until the next start'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "config" -d 'Show the configuration in force, secrets redacted'
complete -c velt-sidecar -n "__fish_velt_sidecar_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "refusals" -d 'Show what was refused lately, and how often'
