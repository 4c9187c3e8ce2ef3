# The app and the sidecar in one group. Put in your own image and service.
# What trusts what, secrets, start and end: docs/platforms/nomad.md.
job "my-app" {
  group "my-app" {
    # Services are deregistered first; only then does a task get a signal.
    shutdown_delay = "10s"

    network {
      # One network namespace for all tasks of the group: they share loopback.
      mode = "bridge"
      port "http" { to = 8080 }
      port "admin" { to = 9901 }
    }

    service {
      name     = "my-app"
      port     = "http"
      provider = "nomad"

      check {
        type     = "http"
        port     = "admin"
        path     = "/healthz/ready"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "app" {
      driver = "docker"

      config {
        image = "docker.io/hashicorp/http-echo:1.0.0"
        # Loopback only: a client that reaches the app past the sidecar can claim to be any user.
        args = ["-listen=127.0.0.1:3000", "-text=hello"]
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }

    task "velt-sidecar" {
      driver = "docker"
      # Nomad stops the leader first: the sidecar drains while the app is there.
      leader = true
      # More than shutdown.grace and shutdown.deadline together.
      kill_timeout = "30s"

      config {
        image           = "registry.example/velt-sidecar:0.1.0"
        cap_drop        = ["all"]
        readonly_rootfs = true
        security_opt    = ["no-new-privileges"]
      }

      env {
        VELT_SIDECAR_LISTEN__ADDRESS         = "0.0.0.0:8080"
        VELT_SIDECAR_ADMIN__ADDRESS          = "0.0.0.0:9901"
        VELT_SIDECAR_APP__ADDRESS            = "127.0.0.1:3000"
        VELT_SIDECAR_IDENTITY__SECRET_HEADER = "X-Sidecar-Secret"
        VELT_SIDECAR_IDENTITY__SECRET_FILE   = "/secrets/front-secret"
        VELT_SIDECAR_VELT__API               = "v2"
        VELT_SIDECAR_VELT__ORGANIZATION      = "your-organization-id"
        VELT_SIDECAR_VELT__API_KEY_FILE      = "/secrets/velt-api-key"
        VELT_SIDECAR_VELT__AUTH_TOKEN_FILE   = "/secrets/velt-auth-token"
        VELT_SIDECAR_LOG__FORMAT             = "json"
        # shutdown_delay has given balancers their time.
        VELT_SIDECAR_SHUTDOWN__GRACE    = "0s"
        VELT_SIDECAR_SHUTDOWN__DEADLINE = "20s"
      }

      # Each file is written again when its variable changes. The sidecar looks at its files by itself.
      template {
        data        = "{{ with nomadVar \"nomad/jobs/my-app\" }}{{ .front_secret }}{{ end }}"
        destination = "secrets/front-secret"
        change_mode = "noop"
        uid         = 65532
        perms       = "0400"
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/my-app\" }}{{ .velt_api_key }}{{ end }}"
        destination = "secrets/velt-api-key"
        change_mode = "noop"
        uid         = 65532
        perms       = "0400"
      }

      template {
        data        = "{{ with nomadVar \"nomad/jobs/my-app\" }}{{ .velt_auth_token }}{{ end }}"
        destination = "secrets/velt-auth-token"
        change_mode = "noop"
        uid         = 65532
        perms       = "0400"
      }

      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
