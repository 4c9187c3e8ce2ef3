-- Mints for users whom the map does not have, once per user, and forgets tokens before they end.
local LIFE = 36 * 3600
local url, file = os.getenv("VELT_URL"), os.getenv("VELT_MAP")
local tokens = Map.new(file, Map._str)
local minting, minted_at = {}, {}

-- User ids come from a trusted proxy, but a quote in one must not end the string.
local function quoted(text)
    return '"' .. text:gsub('[%c"\\]', function(c) return ("\\u%04x"):format(c:byte()) end) .. '"'
end

local function fetch(user)
    local body = '{"data":{"apiKey":"peers","authToken":"peers","userId":' .. quoted(user) .. "}}"
    local answer = core.httpclient():post {
        url = url,
        headers = {
            ["content-type"] = { "application/json" },
            ["content-length"] = { tostring(#body) },
        },
        body = body,
        timeout = 3000,
    }
    return answer.status == 200 and answer.body:match('"token"%s*:%s*"([%w%.%-_]+)"') or nil
end

core.register_action("mint", { "http-req" }, function(txn)
    local user = txn.sf:req_hdr("X-Forwarded-User")
    local deadline = core.now().sec + 5
    while minting[user] and core.now().sec < deadline do
        core.msleep(5)
    end
    -- HAProxy may run another script between two calls, so lock before the look-up.
    minting[user] = true
    local token = tokens:lookup(user)
    if not token then
        local fetched, result = pcall(fetch, user)
        token = fetched and result or nil
        if token then
            core.set_map(file, user, token)
            minted_at[user] = core.now().sec
        end
    end
    minting[user] = nil
    if token then txn:set_var("txn.token", token) end
end)

core.register_task(function()
    while true do
        core.sleep(60)
        local now = core.now().sec
        for user, at in pairs(minted_at) do
            if now - at > LIFE then
                core.del_map(file, user)
                minted_at[user] = nil
            end
        end
    end
end)
